package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// object is whatever the API server keeps.
type object = map[string]any

// get asks the API server, into a value or only whether it answers.
func (c *Cluster) get(path string, into any) error { return c.call(http.MethodGet, path, nil, into) }

func (c *Cluster) call(method, path string, send, into any) error {
	var body io.Reader
	if send != nil {
		text, err := json.Marshal(send)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	answer, err := c.request(method, path, body)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode >= 300 {
		var status struct{ Message string }
		_ = json.Unmarshal(text, &status)
		return &refusal{answer.StatusCode, fmt.Sprintf("%s %s: %d %s", method, path, answer.StatusCode, status.Message)}
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

func (c *Cluster) request(method, path string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(c.context, method, "https://"+apiAddress+path, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+adminToken)
	request.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	return c.client.Do(request)
}

// refusal is an answer of the API server that is no success.
type refusal struct {
	status  int
	message string
}

func (r *refusal) Error() string { return r.message }

func isMissing(err error) bool {
	var refused *refusal
	return errors.As(err, &refused) && refused.status == http.StatusNotFound
}

// list returns the objects below a path such as /api/v1/namespaces/checkup/pods.
func (c *Cluster) list(path string) ([]object, error) {
	var all struct{ Items []object }
	err := c.get(path, &all)
	return all.Items, err
}

// at follows keys into an object; nil where there is nothing.
func at(value any, path ...string) any {
	for _, key := range path {
		inner, _ := value.(object)
		value = inner[key]
	}
	return value
}

func text(value any, path ...string) string {
	found, _ := at(value, path...).(string)
	return found
}

func number(value any, path ...string) int {
	found, _ := at(value, path...).(float64)
	return int(found)
}

func items(value any, path ...string) []any {
	found, _ := at(value, path...).([]any)
	return found
}

func nameOf(one object) string      { return text(one, "metadata", "name") }
func namespaceOf(one object) string { return text(one, "metadata", "namespace") }
func labelOf(one object, label string) string {
	return text(one, "metadata", "labels", label)
}

// condition is the status of one of an object's conditions: True, False, or nothing.
func condition(one object, kind string) string {
	for _, each := range items(one, "status", "conditions") {
		if text(each, "type") == kind {
			return text(each, "status")
		}
	}
	return ""
}

// event is a change that the API server tells.
type event struct {
	Type   string
	Object object
}

// watch follows the objects below a path until stop is called; seen hears of each change in its order, from the first
// state on.
func (c *Cluster) watch(path string, seen func(event)) (stop func() error, err error) {
	var first struct {
		Metadata struct{ ResourceVersion string }
		Items    []object
	}
	if err := c.get(path, &first); err != nil {
		return nil, err
	}
	for _, one := range first.Items {
		seen(event{"ADDED", one})
	}
	join := "?"
	if strings.Contains(path, "?") {
		join = "&"
	}
	answer, err := c.request(http.MethodGet, path+join+"watch=true&resourceVersion="+first.Metadata.ResourceVersion, nil)
	if err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() {
		decoder := json.NewDecoder(answer.Body)
		for {
			var one event
			if err := decoder.Decode(&one); err != nil {
				ended <- err
				return
			}
			seen(one)
		}
	}()
	return func() error {
		select {
		case err := <-ended: // before anybody wanted it to
			return fmt.Errorf("the watch of %s has ended: %w", path, err)
		default:
			answer.Body.Close()
			<-ended
			return nil
		}
	}, nil
}
