package kube

import (
	"context"

	"k8s.io/klog/v2"
)

// quiet is ctx with client-go's log two levels down and its errors no more
// than remarks: what it reports there, a connection that ended or a stream
// that was closed, comes back to us as an error or is no matter. With -v it is
// all to be seen.
func quiet(ctx context.Context) context.Context {
	logger := klog.FromContext(ctx)
	if logger.GetSink() == nil {
		return ctx
	}
	return klog.NewContext(ctx, logger.WithSink(remarks{logger.GetSink()}))
}

type remarks struct {
	klog.LogSink
}

// lower is what is added to each level.
const lower = 2

func (r remarks) Enabled(level int) bool { return r.LogSink.Enabled(level + lower) }

func (r remarks) Info(level int, message string, pairs ...any) {
	r.LogSink.Info(level+lower, message, pairs...)
}

func (r remarks) Error(err error, message string, pairs ...any) {
	if r.LogSink.Enabled(lower) {
		r.LogSink.Info(lower, message, append(pairs, "err", err)...)
	}
}

func (r remarks) WithValues(pairs ...any) klog.LogSink {
	return remarks{r.LogSink.WithValues(pairs...)}
}

func (r remarks) WithName(name string) klog.LogSink { return remarks{r.LogSink.WithName(name)} }
