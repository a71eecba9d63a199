module checkup.example.com/k8s/cluster

go 1.26.0
