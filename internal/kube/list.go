package kube

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pageSize keeps one answer of a large cluster at a few megabytes.
const pageSize = 500

// list reads a kind page by page. A continue token that expires half-way, as
// it does after some minutes, makes it start over without pages.
func list[L metav1.ListInterface, T any](ctx context.Context, options metav1.ListOptions,
	page func(context.Context, metav1.ListOptions) (L, error), items func(L) []T,
) ([]T, error) {
	var all []T
	options.Limit = pageSize
	for {
		var answer L
		err := again(ctx, func(ctx context.Context) (err error) {
			answer, err = page(ctx, options)
			return err
		})
		if apierrors.IsResourceExpired(err) && options.Continue != "" {
			options.Continue, options.Limit, all = "", 0, nil
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, items(answer)...)
		if options.Continue = answer.GetContinue(); options.Continue == "" {
			return all, nil
		}
	}
}
