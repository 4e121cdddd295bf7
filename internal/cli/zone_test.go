package cli_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/backsnap/kubectl-backsnap/internal/cli"
)

func TestZone(t *testing.T) {
	dir := t.TempDir()
	link := func(name, target string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.Symlink(target, file); err != nil {
			t.Fatal(err)
		}
		return file
	}
	copied := filepath.Join(dir, "copied")
	if err := os.WriteFile(copied, []byte("TZif2"), 0o600); err != nil {
		t.Fatal(err)
	}
	zoneFile := filepath.Join(dir, "zoneinfo", "Asia", "Kathmandu")
	if err := errors.Join(os.MkdirAll(filepath.Dir(zoneFile), 0o700), os.WriteFile(zoneFile, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	const noName = "the local time zone has no IANA name (%s): UTC is used; set --timezone"
	berlin := link("berlin", "/usr/share/zoneinfo/Europe/Berlin")
	for _, c := range []struct {
		name           string
		flag, tz, link string
		want, note     string
		fails          bool
	}{
		{name: "the flag goes before all", flag: "America/New_York", tz: "Asia/Tokyo", link: berlin, want: "America/New_York"},
		{name: "UTC", flag: "UTC", want: "UTC"},
		{name: "UTC by another name", flag: "Etc/UTC", want: "UTC"},
		{name: "a flag that is no zone", flag: "Mars/Olympus", fails: true},
		{name: "Local is no name", flag: "Local", fails: true},
		{name: "an offset is no zone", flag: "+02:00", fails: true},
		{name: "a path out of the zones", flag: "../../etc/passwd", fails: true},

		{name: "$TZ goes before the machine", tz: "Asia/Tokyo", link: berlin, want: "Asia/Tokyo"},
		{name: "as POSIX writes it", tz: ":Asia/Tokyo", link: berlin, want: "Asia/Tokyo"},
		{name: "as a file", tz: ":/usr/share/zoneinfo/Asia/Tokyo", link: berlin, want: "Asia/Tokyo"},
		{name: "a rule has no name", tz: "CET-1CEST", link: berlin, want: "UTC", note: `$TZ "CET-1CEST" is no IANA time zone: UTC is used`},

		{name: "the machine's", link: berlin, want: "Europe/Berlin"},
		{name: "a relative link", link: link("relative", "../usr/share/zoneinfo/Asia/Tokyo"), want: "Asia/Tokyo"},
		{name: "as macOS has it", link: link("mac", "/var/db/timezone/zoneinfo/Europe/Berlin"), want: "Europe/Berlin"},
		{name: "one with the POSIX tree", link: link("posix", "/usr/share/zoneinfo/posix/Europe/Berlin"), want: "Europe/Berlin"},
		{name: "a link to a link", link: link("twice", link("once", zoneFile)), want: "Asia/Kathmandu"},
		{name: "a copy of a zone has no name", link: copied, want: "UTC", note: noName},
		{name: "a link to something else", link: link("else", "/etc/hostname"), want: "UTC", note: noName},
		{name: "no local zone, as in a pod", link: filepath.Join(dir, "missing"), want: "UTC"},
	} {
		t.Run(c.name, func(t *testing.T) {
			loc, note, err := cli.Zone(c.flag, func(name string) string {
				if name != "TZ" {
					t.Errorf("$%s was asked for", name)
				}
				return c.tz
			}, c.link)
			if c.fails {
				if err == nil {
					t.Errorf("got %s", loc)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if loc.String() != c.want {
				t.Errorf("got %s, want %s", loc, c.want)
			}
			if c.note == noName {
				c.note = "the local time zone has no IANA name (" + c.link + "): UTC is used; set --timezone"
			}
			if note != c.note {
				t.Errorf("note: got %q, want %q", note, c.note)
			}
		})
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 50 << 30: "50.0 GiB", 3 << 40: "3.0 TiB", 1 << 50: "1.0 PiB", 5000 << 50: "5000.0 PiB",
	} {
		if got := cli.Size(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}

func TestSpan(t *testing.T) {
	for text, want := range map[string]string{
		"0s": "0.0s", "120ms": "0.1s", "9.94s": "9.9s", "9.96s": "10s", "41s": "41s", "59.4s": "59s", "59.6s": "1m00s", "60s": "1m00s", "3m8s": "3m08s", "59m59.9s": "1h00m", "2h5m": "2h05m", "30h": "30h00m",
	} {
		d := span(text)
		if got := cli.Span(d); got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}
