// Command luacheck runs Lua scripts the way Argo CD runs a resource's health and actions: in
// gopher-lua, with the object as the global "obj" and what the script returns as JSON.
//
// It reads a JSON array of jobs and writes one of answers, in the same order. Libraries are those
// that Argo CD opens for scripts of its ConfigMap: package, base and table.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	lua "github.com/yuin/gopher-lua"
)

// slowest is Argo CD's limit for one script.
const slowest = time.Second

type job struct {
	Script string         `json:"script"`
	Object map[string]any `json:"object"`
}

type answer struct {
	Result any    `json:"result"`
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
	answers := make([]answer, len(jobs))
	for i, it := range jobs {
		result, err := run(it)
		answers[i].Result = result
		if err != nil {
			answers[i].Error = err.Error()
		}
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}

func run(it job) (any, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage,
		lua.BaseLibName: lua.OpenBase,
		lua.TabLibName:  lua.OpenTable,
	} {
		state.Push(state.NewFunction(open))
		state.Push(lua.LString(name))
		state.Call(1, 0)
	}
	limit, cancel := context.WithTimeout(context.Background(), slowest)
	defer cancel()
	state.SetContext(limit)
	state.SetGlobal("obj", toLua(state, it.Object))
	if err := state.DoString(it.Script); err != nil {
		return nil, err
	}
	return fromLua(state.Get(-1))
}

func toLua(state *lua.LState, value any) lua.LValue {
	switch it := value.(type) {
	case bool:
		return lua.LBool(it)
	case float64:
		return lua.LNumber(it)
	case string:
		return lua.LString(it)
	case []any:
		table := state.CreateTable(len(it), 0)
		for _, item := range it {
			table.Append(toLua(state, item))
		}
		return table
	case map[string]any:
		table := state.CreateTable(0, len(it))
		for key, item := range it {
			table.RawSetString(key, toLua(state, item))
		}
		return table
	}
	return lua.LNil
}

// fromLua cannot tell an empty object from an empty array, as Argo CD's encoder cannot: both are
// arrays then.
func fromLua(value lua.LValue) (any, error) {
	switch it := value.(type) {
	case *lua.LNilType:
		return nil, nil
	case lua.LBool:
		return bool(it), nil
	case lua.LNumber:
		return float64(it), nil
	case lua.LString:
		return string(it), nil
	case *lua.LTable:
		return fromTable(it)
	}
	return nil, fmt.Errorf("a %s has no JSON", value.Type())
}

func fromTable(table *lua.LTable) (any, error) {
	list, object := []any{}, map[string]any{}
	var failed error
	table.ForEach(func(key, value lua.LValue) {
		item, err := fromLua(value)
		failed = errors.Join(failed, err)
		if name, named := key.(lua.LString); named {
			object[string(name)] = item
		} else {
			list = append(list, item)
		}
	})
	if len(object) > 0 && len(list) > 0 {
		failed = errors.Join(failed, errors.New("a table is neither an array nor an object"))
	}
	if len(object) > 0 {
		return object, failed
	}
	return list, failed
}
