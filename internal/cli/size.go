package cli

import (
	"fmt"
	"time"
)

// size is n bytes for a person: `2.1 GiB`.
func size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	bytes, unit := unitOf(n)
	return fmt.Sprintf("%.1f %s", float64(n)/bytes, unit)
}

// share is a part of n bytes for a person: `5.4/11.7 GiB`.
func share(part, n int64) string {
	bytes, unit := unitOf(n)
	return fmt.Sprintf("%.1f/%.1f %s", float64(part)/bytes, float64(n)/bytes, unit)
}

// unitOf is the unit to write n bytes in, and its bytes.
func unitOf(n int64) (bytes float64, unit string) {
	bytes = 1024
	prefix := 0
	for float64(n) >= bytes*1024 && prefix < 4 {
		bytes, prefix = bytes*1024, prefix+1
	}
	return bytes, "KMGTP"[prefix:prefix+1] + "iB"
}

// span is d for a person: `41s`, `3m08s`, `2h05m`; below ten seconds with one
// decimal.
func span(d time.Duration) string {
	if tenths := d.Round(time.Second / 10); tenths < 10*time.Second {
		return fmt.Sprintf("%.1fs", tenths.Seconds())
	}
	d = d.Round(time.Second)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}
