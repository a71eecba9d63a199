package mesh

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// process is a program that runs until it ends, is ended, or the test is over.
type process struct {
	command *exec.Cmd
	log     string
	gone    chan struct{}
}

// start runs a program; what it said is kept, and its end is shown where the test failed.
func (l *lab) start(name string, command *exec.Cmd) (*process, error) {
	l.mu.Lock()
	l.started[name]++
	path := filepath.Join(l.dir, fmt.Sprintf("%s-%d.log", name, l.started[name]))
	l.mu.Unlock()
	out, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	command.Stdout, command.Stderr = out, out
	if command.SysProcAttr == nil {
		command.SysProcAttr = &syscall.SysProcAttr{}
	}
	if command.SysProcAttr.Pdeathsig == 0 { // it dies with this process, however that ends
		command.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	made := &process{command, path, make(chan struct{})}
	go func() {
		_ = command.Wait()
		out.Close()
		close(made.gone)
	}()
	l.t.Cleanup(func() {
		made.kill()
		if text, _ := os.ReadFile(path); l.t.Failed() {
			l.t.Logf("the end of %s:\n%s", filepath.Base(path), text[max(0, len(text)-2000):])
		}
	})
	return made, nil
}

func (p *process) kill() {
	_ = p.command.Process.Signal(p.command.SysProcAttr.Pdeathsig)
	<-p.gone
}

// end asks a process to go, and kills it where it does not within its grace.
func (p *process) end(grace time.Duration) error {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.gone:
		return nil
	case <-time.After(grace):
		p.kill()
		return fmt.Errorf("%s had to be killed after %s", filepath.Base(p.log), grace)
	}
}

// alive is an error once the process has ended.
func (p *process) alive() error {
	select {
	case <-p.gone:
		text, _ := os.ReadFile(p.log)
		return errors.New("it ended: " + string(text[max(0, len(text)-1000):]))
	default:
		return nil
	}
}
