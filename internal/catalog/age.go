package catalog

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// AnnotationMaxAge, on a claim or its namespace, is how old its last good
// restore point may get, as ParseAge reads it.
const AnnotationMaxAge = "backsnap.sh/max-age"

// ParseAge reads a length of time: Go's own, 90m, or whole days and weeks, 7d
// and 2w. None is 0: nothing is asked for. One that is not positive is an error.
func ParseAge(text string) (time.Duration, error) {
	text = strings.TrimSpace(text)
	if text == "none" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if n := len(text) - 1; n > 0 {
		if unit, known := longUnits[text[n]]; known {
			var count int
			count, err = strconv.Atoi(text[:n])
			d = time.Duration(count) * unit
			if d/unit != time.Duration(count) {
				d = 0
			}
		}
	}
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("age %q: want the form 24h, 7d, 2w or none", text)
	}
	return d, nil
}

// longUnits are those that package time does not know.
var longUnits = map[byte]time.Duration{'d': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
