package kit

import (
	"fmt"
	"strconv"
	"testing"
	"time"
)

// Beat is a Pulse inside of a PostgreSQL's own pod: it goes on while no API
// server is there to write through, and the rows themselves tell their time.
type Beat struct {
	t  testing.TB
	db Database
}

// Inside starts one, which ends with the pod.
func Inside(t testing.TB, db Database) Beat {
	t.Helper()
	db.SQL(t, "create table if not exists beat (at timestamptz)")
	const each = `while sleep 0.1; do psql -XqtA -U postgres -d shop -c 'insert into beat values (clock_timestamp())'; done`
	Exec(t, db.Namespace, db.Pod(), "setsid sh -c "+Quote(each)+" >/dev/null 2>&1 </dev/null &")
	Until(t, "first row of the beat", func() string {
		if db.SQL(t, "select count(*) from beat") == "0" {
			return "none"
		}
		return ""
	})
	return Beat{t, db}
}

// Longest is the longest time between two rows, and since the last one.
func (b Beat) Longest() time.Duration {
	b.t.Helper()
	text := b.db.SQL(b.t, `select extract(epoch from greatest(max(at - before), clock_timestamp() - max(at)))
		from (select at, lag(at) over (order by at) as before from beat) rows`)
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil {
		b.t.Fatal(fmt.Errorf("read the longest pause: %w", err))
	}
	b.db.SQL(b.t, "delete from beat where at < (select max(at) from beat)")
	return time.Duration(seconds * float64(time.Second))
}
