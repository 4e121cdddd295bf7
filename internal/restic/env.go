package restic

import (
	"bufio"
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// ReadEnv reads a file of variables, a line each: KEY=VALUE, an empty line, or
// a comment that begins with #. A value stands as it is, unless single or
// double quotes enclose it, which are taken off; nothing is escaped or
// expanded. A value that begins or ends with white space needs quotes. A line
// that is not like that is an error that names its number and never says what
// stands in it.
func ReadEnv(file []byte) (map[string][]byte, error) {
	entries := map[string][]byte{}
	lines := bufio.NewScanner(bytes.NewReader(file))
	lines.Buffer(nil, 1<<20)
	number := 0
	for lines.Scan() {
		number++
		line := strings.TrimSuffix(lines.Text(), "\r")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, fault := readEntry(line)
		if _, twice := entries[key]; fault == "" && twice {
			fault = key + " is there twice"
		}
		if fault != "" {
			return nil, fmt.Errorf("line %d: %s", number, fault)
		}
		entries[key] = []byte(value)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", number+1, err)
	}
	return entries, nil
}

// readEntry reads one line; fault is what is wrong with it, "" for nothing.
func readEntry(line string) (key, value, fault string) {
	key, value, found := strings.Cut(line, "=")
	switch {
	case !found:
		return "", "", "no = in it; want KEY=VALUE"
	case !variable.MatchString(key):
		return "", "", "no name of a variable before the ="
	case strings.ContainsRune(value, 0):
		return "", "", "a NUL byte in the value of " + key
	case value == "":
		return "", "", key + " has no value"
	}
	if quote := value[:1]; quote == "'" || quote == `"` {
		if len(value) < 3 || value[len(value)-1:] != quote || strings.Contains(value[1:len(value)-1], quote) {
			return "", "", "the quotes of the value of " + key + " do not enclose it"
		}
		return key, value[1 : len(value)-1], ""
	}
	if strings.TrimSpace(value) != value {
		return "", "", "white space around the value of " + key + "; put it in quotes if it is meant"
	}
	return key, value, ""
}

// reserved are the variables that movers set themselves.
var reserved = []string{"BACKSNAP_NAMESPACE", "BACKSNAP_MARK", "BACKSNAP_NONCE", "BACKSNAP_PID", "GOMEMLIMIT", "HOME", "PATH", "RESTIC_CACHE_DIR", "RESTIC_PROGRESS_FPS", "TMPDIR", "TZ"}

// CheckEnv is whether movers can work with entries as their environment, where
// onClaim says that the repository lies on a claim. No value is in the error.
func CheckEnv(entries map[string][]byte, onClaim bool) error {
	for _, key := range reserved {
		if entries[key] != nil {
			return fmt.Errorf("%s is set by movers themselves", key)
		}
	}
	has := func(key string) bool { return entries[key] != nil }
	if !slices.ContainsFunc([]string{"RESTIC_PASSWORD", "RESTIC_PASSWORD_FILE", "RESTIC_PASSWORD_COMMAND"}, has) {
		return fmt.Errorf("it has no RESTIC_PASSWORD")
	}
	address := string(entries["RESTIC_REPOSITORY"])
	switch below := address == ClaimPath || strings.HasPrefix(address, ClaimPath+"/"); {
	case address == "":
		return fmt.Errorf("it has no RESTIC_REPOSITORY")
	case onClaim && !below:
		return fmt.Errorf("RESTIC_REPOSITORY does not lie below %s, where movers see the claim", ClaimPath)
	case !onClaim && below:
		return fmt.Errorf("RESTIC_REPOSITORY lies on a claim: say which one")
	case !onClaim && (strings.HasPrefix(address, "/") || strings.HasPrefix(address, ".")):
		return fmt.Errorf("RESTIC_REPOSITORY is a folder of the mover's, which goes with it; a repository in the cluster needs a claim")
	}
	return nil
}
