package restore_test

import (
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

func TestParseDatabase(t *testing.T) {
	long := strings.Repeat(`'" =`, 50)
	for _, c := range []struct {
		name, text string
		there      []string
		open       bool
		want       string // from -> into, or the error
	}{
		{"one of the dump goes into itself", "shop", []string{"crm", "shop"}, false, "shop -> shop"},
		{"another name is new, for the only one there is", "new", []string{"shop"}, false, "shop -> new"},
		{"the server's own one does not count", "new", []string{"postgres", "shop"}, false, "shop -> new"},
		{"but where it is alone", "new", []string{"postgres"}, false, "postgres -> new"},
		{"of several one is named", "shop=new", []string{"crm", "shop"}, false, "shop -> new"},
		{"of several one must be named", "new", []string{"crm", "shop"}, false, "--database new: there are 2 databases: say which is meant, --database FROM=new"},
		{"a name with an equals sign", "a=b=c=d", []string{"a=b", "x"}, false, "a=b -> c=d"},
		{"long and odd ones", long + "=" + long, []string{"x", long}, false, long + " -> " + long},
		{"one that the server does not know may be in the dump", "gone=new", []string{"crm", "shop"}, true, "gone -> new"},
		{"the same where the server has none", "gone", nil, true, "gone -> gone"},
		{"no name", "shop=", []string{"shop"}, false, "--database: a name is empty"},
		{"two lines", "shop=a\nb", []string{"shop"}, false, `--database "a\nb": a name with control characters`},
		{"the server's own", "shop=Template1", []string{"shop"}, false, "--database Template1: that is one of the server's own"},
	} {
		from, into, err := restore.ParseDatabase(c.text, c.there, c.open)
		got := from + " -> " + into
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
