package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// localtime is the link that names the machine's time zone.
const localtime = "/etc/localtime"

// zone is the time zone of a run: the flag's, else $TZ, else the one that link
// points to, else UTC, with the reason in note where there is a local zone
// without a name. Go itself calls the local zone "Local", which is no name to
// put into a record.
func zone(flag string, getenv func(string) string, link string) (loc *time.Location, note string, err error) {
	if flag != "" {
		loc, err = named(flag)
		return loc, "", err
	}
	if tz := strings.TrimPrefix(getenv("TZ"), ":"); tz != "" {
		if loc, err := named(zoneName(tz)); err == nil {
			return loc, "", nil
		}
		return time.UTC, fmt.Sprintf("$TZ %q is no IANA time zone: UTC is used", tz), nil
	}
	if _, err := os.Lstat(link); os.IsNotExist(err) {
		return time.UTC, "", nil // no local zone is set, as in a pod
	}
	// The first target bears the name that a person chose; where it is
	// another link, the last one may.
	first, _ := os.Readlink(link)
	last, _ := filepath.EvalSymlinks(link)
	for _, target := range []string{first, last} {
		if loc, err := named(zoneName(target)); err == nil && target != "" {
			return loc, "", nil
		}
	}
	return time.UTC, fmt.Sprintf("the local time zone has no IANA name (%s): UTC is used; set --timezone", link), nil
}

// zoneName is the name of a zone by the path of its file, as far as it is one.
func zoneName(file string) string {
	_, name, found := strings.Cut(file, "zoneinfo/")
	if !found {
		return file
	}
	return strings.TrimPrefix(strings.TrimPrefix(name, "posix/"), "right/")
}

func named(name string) (*time.Location, error) {
	if name == "Local" {
		return nil, fmt.Errorf("time zone %q: want an IANA name such as Europe/Berlin", name)
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("time zone %q: want an IANA name such as Europe/Berlin: %w", name, err)
	}
	if name == "Etc/UTC" {
		return time.UTC, nil
	}
	return loc, nil
}
