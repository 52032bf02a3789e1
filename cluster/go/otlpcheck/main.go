// Reads OTLP traces in JSON with the OpenTelemetry Collector's own parser, and lists the spans.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

func main() {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		fail(err)
	}
	request := ptraceotlp.NewExportRequest()
	if err := request.UnmarshalJSON(text); err != nil {
		fail(err)
	}
	resources := request.Traces().ResourceSpans()
	for i := 0; i < resources.Len(); i++ {
		scopes := resources.At(i).ScopeSpans()
		for j := 0; j < scopes.Len(); j++ {
			spans := scopes.At(j).Spans()
			for k := 0; k < spans.Len(); k++ {
				span := spans.At(k)
				line, err := json.Marshal(map[string]any{
					"resource":   resources.At(i).Resource().Attributes().AsRaw(),
					"trace":      span.TraceID().String(),
					"span":       span.SpanID().String(),
					"parent":     span.ParentSpanID().String(),
					"name":       span.Name(),
					"kind":       span.Kind().String(),
					"start":      span.StartTimestamp(),
					"end":        span.EndTimestamp(),
					"attributes": span.Attributes().AsRaw(),
					"status":     span.Status().Code().String(),
					"message":    span.Status().Message(),
				})
				if err != nil {
					fail(err)
				}
				fmt.Println(string(line))
			}
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
