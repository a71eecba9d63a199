module checkup.example/stubs

go 1.25.0
