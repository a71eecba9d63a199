"""docs/stubs.md as a program reads it: its commands by heading, and what its table promises of them."""

import dataclasses
import pathlib
import re
import runpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = "docs/stubs.md"


# Shows that what was made for all languages at once compiles, in a directory that has it as stubs/go, stubs/typescript
# and stubs/java.
COMPILES = (
    "cp ../checkup/.ci/clients/go/go.* ../checkup/.ci/clients/go/*.go . && cp ../checkup/.ci/clients/go/stubs/go.mod stubs/go/",
    "go mod edit -replace checkup.example/stubs=./stubs/go && go vet . checkup.example/stubs/...",
    "mkdir ts && cp -r ../checkup/.ci/clients/typescript/. ts && cp -r stubs/typescript ts/stubs && cd ts && npm install && npx tsc",
    "cp -r ../checkup/.ci/clients/java/. . && mvn -q dependency:build-classpath -Dmdep.outputFile=classpath",
    "javac -d build -cp $(cat classpath) $(find stubs/java src -name '*.java')",
)


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading of the page whose commands are run."""

    name: str
    heading: str
    # Programs without which the section is skipped.
    needs: tuple
    # What its last command, which runs a client, shows: all of the contract, or a booking. None: it runs none.
    client: str | None = None
    # Whether it expects the plugins of all languages on the PATH.
    plugins: bool = False
    # Commands that show that stubs without a client are good.
    compiles: tuple = ()


SECTIONS = [
    Section("go", "Go", ("go", "buf"), "all"),
    Section("typescript", "TypeScript", ("node", "npm"), "all"),
    Section("java", "Java", ("javac", "mvn"), "all"),
    Section("kotlin", "Kotlin", ("javac", "mvn"), "booking"),
    Section("python", "Python", ("python3",), "all"),
    Section("together", "All by one command", ("buf", "go", "npm", "javac", "mvn"), plugins=True, compiles=COMPILES),
    Section("protoc", "protoc alone", ("go", "npm", "javac", "mvn"), plugins=True, compiles=COMPILES),
    # By the protoc of the sections before, or one that is here anyway.
    Section("csharp", "C#", ("protoc",), compiles=("grep -q 'namespace Checkup.Screening.V1' stubs/Screening.cs",)),
]
# Where each version stands that the table names: the name in the table, a file, and what stands around the version
# there.
PINS = [
    ("protoc-gen-go", ".ci/clients/go/buf.gen.yaml", "cmd/protoc-gen-go@v{}]"),
    ("protoc-gen-go-grpc", ".ci/clients/go/buf.gen.yaml", "cmd/protoc-gen-go-grpc@v{}]"),
    ("@bufbuild/protoc-gen-es", ".ci/clients/typescript/package.json", '"@bufbuild/protoc-gen-es": "{}"'),
    ("@connectrpc/connect-node", ".ci/clients/typescript/package.json", '"@connectrpc/connect-node": "{}"'),
    ("protoc-gen-go", "proto/buf.gen.yaml", "cmd/protoc-gen-go@v{}]"),
    ("protoc-gen-go-grpc", "proto/buf.gen.yaml", "cmd/protoc-gen-go-grpc@v{}]"),
    ("@bufbuild/protoc-gen-es", "proto/buf.gen.yaml", "@bufbuild/protoc-gen-es@{},"),
    ("protoc", ".ci/clients/java/pom.xml", "<protobuf.version>{}</protobuf.version>"),
    ("protoc-gen-grpc-java", ".ci/clients/java/pom.xml", "<protoc-gen-grpc-java.version>{}</protoc-gen-grpc-java.version>"),
    ("protoc", ".ci/clients/kotlin/pom.xml", "<protobuf.version>{}</protobuf.version>"),
    ("protoc-gen-grpc-java", ".ci/clients/kotlin/pom.xml", "<protoc-gen-grpc-java.version>{}</protoc-gen-grpc-java.version>"),
    ("protoc-gen-grpc-kotlin", ".ci/clients/kotlin/pom.xml", "<grpc-kotlin.version>{}</grpc-kotlin.version>"),
    ("grpcio-tools", ".ci/clients/python/requirements.txt", "grpcio-tools=={}\n"),
]


def text():
    return (ROOT / PAGE).read_text()


def block(heading, of=None):
    """The commands of the first block marked sh below a heading, whole as .ci/commands sees them."""
    below = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", of or text(), re.M | re.S)
    found = below and re.search(r"^```sh\n(.*?)^```", below[1], re.M | re.S)
    if not found:
        raise SystemExit(f"{PAGE} has no commands below {heading}")
    return list(runpy.run_path(str(ROOT / ".ci/commands"))["whole"](found[1]))


def disagreements(of):
    """Rows of the table that are not as the commands and the pinned versions are."""
    rows = {cells[0]: cells[1:] for line in re.findall(r"^\| (.+) \|$", of, re.M) if (cells := [cell.strip() for cell in line.split("|")])}
    for section in SECTIONS:
        if section.client is None:
            continue
        count = len(block(section.heading, of))
        row = rows.get(section.heading)
        if row is None or row[2] != str(count):
            yield f"{PAGE}: {section.heading} takes {count} commands, and the table says {row and row[2]}"
    for name, path, around in PINS:
        version = re.search(re.escape(around).replace(r"\{\}", r"([\w.-]+)"), (ROOT / path).read_text())
        if version is None:
            yield f"{path}: does not pin {name}"
        elif f"`{name}` {version[1]}" not in of:
            yield f"{PAGE}: does not say that `{name}` is {version[1]}"


def problems():
    found = list(disagreements(text()))
    heading = SECTIONS[0].heading
    more = re.sub(rf"(^## {heading}\n.*?^```sh\n)", r"\1echo one more\n", text(), count=1, flags=re.M | re.S)
    other = text().replace(f"`{PINS[0][0]}` ", f"`{PINS[0][0]}` 9", 1)
    for broken, expected in ((more, f"{heading} takes"), (other, f"`{PINS[0][0]}` is")):
        if not any(expected in problem for problem in disagreements(broken)):
            found.append(f"a planted fault passes: nobody says {expected!r}")
    return found
