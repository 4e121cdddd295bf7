package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// zone is the time zone of a run: the flag's, else $TZ, else the one that
// /etc/localtime links to, else UTC with the reason in note. Go itself calls
// the local zone "Local", which is no name to put into a record.
func zone(flag string, getenv func(string) string) (loc *time.Location, note string, err error) {
	if flag != "" {
		loc, err = named(flag)
		return loc, "", err
	}
	if tz := strings.TrimPrefix(getenv("TZ"), ":"); tz != "" {
		if loc, err := named(tz); err == nil {
			return loc, "", nil
		}
		return time.UTC, fmt.Sprintf("$TZ %q is no IANA time zone: UTC is used", tz), nil
	}
	target, err := filepath.EvalSymlinks("/etc/localtime")
	if os.IsNotExist(err) {
		return time.UTC, "", nil // no local zone is set, as in a pod
	}
	if _, name, found := strings.Cut(target, "zoneinfo/"); found {
		if loc, err := named(name); err == nil {
			return loc, "", nil
		}
	}
	return time.UTC, "the local time zone has no IANA name (/etc/localtime): UTC is used; set --timezone", nil
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
