// Command jqcheck deletes what jq paths select, as Argo CD does with jqPathExpressions before it
// compares what is in Git with what is live: by gojq.
//
// It reads a JSON array of jobs and writes the array of what is left, in the same order.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/itchyny/gojq"
)

type job struct {
	Paths  []string `json:"paths"`
	Object any      `json:"object"`
}

func main() {
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func work() error {
	var jobs []job
	if err := json.NewDecoder(os.Stdin).Decode(&jobs); err != nil {
		return err
	}
	left := make([]any, len(jobs))
	for i, it := range jobs {
		left[i] = it.Object
		for _, path := range it.Paths {
			value, err := deleted(left[i], path)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			left[i] = value
		}
	}
	return json.NewEncoder(os.Stdout).Encode(left)
}

func deleted(value any, path string) (any, error) {
	query, err := gojq.Parse(fmt.Sprintf("del(%s)", path))
	if err != nil {
		return nil, err
	}
	results := query.Run(value)
	result, found := results.Next()
	if !found {
		return nil, fmt.Errorf("no result")
	}
	if err, failed := result.(error); failed {
		return nil, err
	}
	return result, nil
}
