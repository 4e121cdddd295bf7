package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/kubectl/pkg/cmd/get"
)

// apiVersion of the documents that -o json and -o yaml print. Fields are only
// ever added.
const apiVersion = "cli.backsnap.sh/v1"

// snapshotResource is how kubectl names a VolumeSnapshot in -o name.
const snapshotResource = "volumesnapshot.snapshot.storage.k8s.io"

// output is the -o flag and its kin, with all of kubectl's formats.
type output struct {
	format  string
	own     []string // formats that the command itself writes
	print   *genericclioptions.PrintFlags
	columns *get.CustomColumnsPrintFlags
}

// addOutput adds it to cmd, which writes the formats own itself.
func addOutput(cmd *cobra.Command, own ...string) *output {
	o := &output{own: own, print: genericclioptions.NewPrintFlags(""), columns: get.NewCustomColumnsPrintFlags()}
	o.print.NamePrintFlags = nil // our documents are not API objects: names are the commands' own business
	o.print.OutputFormat = nil
	o.print.TemplatePrinterFlags.AddFlags(cmd)
	cmd.Flags().StringVarP(&o.format, "output", "o", "", "Output `format`: "+strings.Join(o.formats(), ", "))
	return o
}

// formats are the formats there are, sorted.
func (o *output) formats() []string {
	formats := append(append([]string{"name", "wide"}, o.own...), o.print.JSONYamlPrintFlags.AllowedFormats()...)
	formats = append(formats, o.print.TemplatePrinterFlags.AllowedFormats()...)
	formats = append(formats, o.columns.AllowedFormats()...)
	slices.Sort(formats)
	return formats
}

// human reports whether a person is to read the output: a table or sentences.
func (o *output) human() bool { return o.format == "" || o.format == "wide" }

// printer prints documents. It fails for a format that there is not; nil
// without an error where the format is human, name or the command's own.
func (o *output) printer() (printers.ResourcePrinter, error) {
	if o.human() || o.format == "name" || slices.Contains(o.own, o.format) {
		return nil, nil
	}
	o.print.OutputFormat = &o.format
	if p, err := o.print.ToPrinter(); !genericclioptions.IsNoCompatiblePrinterError(err) {
		return p, err
	}
	p, err := o.columns.ToPrinter(o.format)
	if genericclioptions.IsNoCompatiblePrinterError(err) {
		return nil, fmt.Errorf("output format %q: want one of %s", o.format, strings.Join(o.formats(), ", "))
	}
	return p, err
}

// document is v, a struct that marshals to a JSON object, as kubectl's
// printers take it. One with items is a list: columns are those of an item.
func document(v any) (runtime.Object, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("write document: %w", err)
	}
	doc := &unstructured.Unstructured{}
	if err := utiljson.Unmarshal(text, &doc.Object); err != nil { // keeps whole numbers whole
		return nil, fmt.Errorf("write document: %w", err)
	}
	if doc.IsList() {
		return doc.ToList()
	}
	return doc, nil
}

// printDocument writes v with p.
func printDocument(w io.Writer, p printers.ResourcePrinter, v any) error {
	doc, err := document(v)
	if err != nil {
		return err
	}
	return p.PrintObj(doc, w)
}
