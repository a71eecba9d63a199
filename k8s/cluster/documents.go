package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

const deployment = "k8s/README.md"

// document reads a document of the copy.
func (c *Cluster) document(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(c.tree, name))
	return string(text), err
}

// blocks are the shell blocks of a document under a heading, a list of commands each, without comments.
func (c *Cluster) blocks(name, heading string) ([][]string, error) {
	whole, err := c.document(name)
	if err != nil {
		return nil, err
	}
	_, section, found := strings.Cut(whole, "\n## "+heading+"\n")
	if !found {
		return nil, fmt.Errorf("%s has no heading %s", name, heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var all [][]string
	for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```").FindAllStringSubmatch(section, -1) {
		var commands []string
		for line := range strings.Lines(block[1]) {
			line, _, _ = strings.Cut(line, " #")
			if line = strings.TrimSpace(line); line != "" {
				commands = append(commands, line)
			}
		}
		all = append(all, commands)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no command under %s", name, heading)
	}
	return all, nil
}

// follow runs commands as a reader would, one by one.
func (c *Cluster) follow(commands []string) error {
	for _, command := range commands {
		if _, err := c.shell(command); err != nil {
			return err
		}
		c.tell("$ %s", command)
	}
	return nil
}

// shown runs a command that has to stand in a document. The pairs replace what stands for a reader's own, and what
// makes it longer.
func (c *Cluster) shown(name, command string, pairs ...string) (string, error) {
	whole, err := c.document(name)
	if err != nil {
		return "", err
	}
	if !strings.Contains(whole, command) {
		return "", fmt.Errorf("%s does not have the command %s", name, command)
	}
	command = strings.NewReplacer(pairs...).Replace(command)
	said, err := c.shell(command)
	if err == nil {
		c.tell("$ %s", command)
	}
	return said, err
}

// secrets are those that the table of the document asks for, by name, with their keys.
func (c *Cluster) secrets() (map[string][]string, error) {
	whole, err := c.document(deployment)
	if err != nil {
		return nil, err
	}
	_, table, found := strings.Cut(whole, "\n| Secret | keys |\n")
	if !found {
		return nil, fmt.Errorf("%s has no table of Secrets", deployment)
	}
	table, _, _ = strings.Cut(table, "\n\n")
	asked := map[string][]string{}
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		if len(cells) < 4 {
			continue
		}
		var keys []string
		for _, key := range regexp.MustCompile("`(url|password)`").FindAllStringSubmatch(cells[2], -1) {
			keys = append(keys, key[1])
		}
		for _, name := range regexp.MustCompile("`([a-z-]+)`").FindAllStringSubmatch(cells[1], -1) {
			asked[name[1]] = keys
		}
	}
	if len(asked) == 0 {
		return nil, fmt.Errorf("the table of Secrets in %s has no rows", deployment)
	}
	return asked, nil
}
