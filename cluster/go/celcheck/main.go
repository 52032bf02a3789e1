// Command celcheck evaluates CEL expressions the way Flux's healthCheckExprs are: parsed but not
// type-checked, with an object's top-level fields as variables and Flux's extensions.
//
// It reads a JSON array of jobs and writes one of answers, in the same order.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/ext"
)

type job struct {
	Expression string         `json:"expression"`
	Object     map[string]any `json:"object"`
}

type answer struct {
	Result bool   `json:"result"`
	Error  string `json:"error,omitempty"`
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
	env, err := cel.NewEnv(
		cel.HomogeneousAggregateLiterals(),
		cel.EagerlyValidateDeclarations(true),
		cel.DefaultUTCTimeZone(true),
		cel.CrossTypeNumericComparisons(true),
		cel.OptionalTypes(),
		ext.Strings(),
		ext.Sets(),
		ext.Encoders(),
	)
	if err != nil {
		return err
	}
	answers := make([]answer, len(jobs))
	for i, it := range jobs {
		answers[i].Result, err = evaluate(env, it)
		if err != nil {
			answers[i].Error = err.Error()
		}
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}

func evaluate(env *cel.Env, it job) (bool, error) {
	parsed, issues := env.Parse(it.Expression)
	if issues.Err() != nil {
		return false, issues.Err()
	}
	program, err := env.Program(parsed, cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return false, err
	}
	value, _, err := program.Eval(it.Object)
	if err != nil {
		return false, err
	}
	result, isBool := value.Value().(bool)
	if !isBool {
		return false, fmt.Errorf("%q is no boolean: %v", it.Expression, value)
	}
	return result, nil
}
