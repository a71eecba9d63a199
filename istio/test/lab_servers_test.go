package mesh

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// servers are what the services have beside the mesh: a PostgreSQL and a NATS of this lab's own.
type servers struct {
	nats     string
	postgres int
}

func (s *servers) database(name string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s", s.postgres, name)
}

func (l *lab) startServers(nats string) {
	l.t.Helper()
	broker := fixedPort(doorPort + 1)
	l.servers = &servers{fmt.Sprintf("nats://127.0.0.1:%d", broker), fixedPort(doorPort + 2)}
	if _, err := l.start("nats", exec.Command(nats, "-a", "127.0.0.1", "-p", fmt.Sprint(broker), "-js", "-sd", filepath.Join(l.dir, "nats"))); err != nil {
		l.t.Fatal(err)
	}
	if err := l.startPostgres(); err != nil {
		l.t.Fatal(err)
	}
	arguments := []string{"migrate"}
	for _, service := range services {
		if service == "mypage" {
			continue
		}
		// As k8s/README.md says to make it: lists are merged by bytes.
		create := fmt.Sprintf("CREATE DATABASE %s TEMPLATE template0 LOCALE 'C'", service)
		if out, err := l.psql("postgres", create); err != nil {
			l.t.Fatalf("%s: %v: %s", create, err, out)
		}
		arguments = append(arguments, "--set", service+".database="+l.servers.database(service))
	}
	if out, err := exec.Command(l.checkup, arguments...).CombinedOutput(); err != nil {
		l.t.Fatalf("checkup migrate: %v: %s", err, out)
	}
}

// psql runs one statement.
func (l *lab) psql(database, statement string) (string, error) {
	program, err := postgresProgram("psql")
	if err != nil {
		return "", err
	}
	command := exec.Command(program, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", l.servers.database(database), "-c", statement)
	command.Env = []string{}
	out, err := command.CombinedOutput()
	return string(out), err
}

// postgresProgram finds one of Debian's, which are not on the PATH, or whichever is.
func postgresProgram(name string) (string, error) {
	if found, err := exec.LookPath(name); err == nil {
		return found, nil
	}
	installed, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(installed) == 0 {
		return "", fmt.Errorf("PostgreSQL's %s is missing: make tools", name)
	}
	slices.Sort(installed)
	return installed[len(installed)-1], nil
}

// startPostgres starts one with the durability of production. It refuses to run as root, so root has its user run it.
func (l *lab) startPostgres() error {
	data := filepath.Join(l.dir, "postgres")
	attributes, err := l.notRoot(data)
	if err != nil {
		return err
	}
	run := func(name string, arguments ...string) (*exec.Cmd, error) {
		program, err := postgresProgram(name)
		command := exec.Command(program, arguments...)
		command.Dir, command.Env, command.SysProcAttr = data, []string{}, attributes
		return command, err
	}
	initialise, err := run("initdb", "--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync",
		"--no-instructions", "--pgdata", filepath.Join(data, "data"))
	if err != nil {
		return err
	}
	if out, err := initialise.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	serve, err := run("postgres", "-D", filepath.Join(data, "data"), "-p", strconv.Itoa(l.servers.postgres), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "max_connections=400")
	if err != nil {
		return err
	}
	// SIGQUIT ends its sessions too; SIGKILL would leave them to notice by themselves.
	serve.SysProcAttr = &syscall.SysProcAttr{Credential: attributes.Credential, Pdeathsig: syscall.SIGQUIT}
	if _, err := l.start("postgres", serve); err != nil {
		return err
	}
	l.eventually("PostgreSQL answers", func() error {
		_, err := l.psql("postgres", "SELECT 1")
		return err
	})
	return nil
}

// notRoot gives a new directory to the user that PostgreSQL is to run as.
func (l *lab) notRoot(directory string) (*syscall.SysProcAttr, error) {
	if err := os.Mkdir(directory, 0o700); err != nil || os.Geteuid() != 0 {
		return &syscall.SysProcAttr{}, err
	}
	found, err := user.Lookup("postgres")
	if err != nil {
		if found, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, _ := strconv.Atoi(found.Uid)
	gid, _ := strconv.Atoi(found.Gid)
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, os.Chown(directory, uid, gid)
}
