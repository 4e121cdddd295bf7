package restic_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

func TestReadStatus(t *testing.T) {
	tests := []struct {
		name, line string
		want       restic.Status
		ok         bool
	}{
		{
			name: "on its way",
			line: `{"message_type":"status","seconds_elapsed":4,"seconds_remaining":12,"percent_done":0.25,"total_files":9,"files_done":2,` +
				`"total_bytes":4000,"bytes_done":1000,"current_files":["/data/a\nb"]}`,
			want: restic.Status{Bytes: 1000, Total: 4000, Rate: 250, Left: 12 * time.Second}, ok: true,
		},
		{
			name: "at the beginning",
			line: `{"message_type":"status","percent_done":0,"total_files":1,"total_bytes":100}`,
			want: restic.Status{Total: 100}, ok: true,
		},
		{name: "cut off", line: `{"message_type":"status","percent_done":0.25,"total_by`},
		{name: "the summary", line: summary},
		{name: "another type whose text is like it", line: `{"message_type":"error","item":"{\"message_type\":\"status\"}"}`},
		{name: "plain text", line: "nonexist does not exist, skipping"},
		{name: "nothing"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, ok := restic.ReadStatus([]byte(test.line))
			equal(t, "status", test.want, got)
			equal(t, "ok", test.ok, ok)
		})
	}
}

func TestReadReport(t *testing.T) {
	done := &restic.Summary{Snapshot: id, Bytes: 100000, Added: 100664, Files: 1, Took: 470 * time.Millisecond}
	tests := []struct {
		name    string
		message []string
		exit    int
		want    restic.Report
		err     string // of a backup
	}{
		{
			name:    "a backup",
			message: []string{"backsnap step=backup exit=0", "errors=0", summary, "", ""},
			want:    restic.Report{Step: "backup", Summary: done},
		},
		{
			name: "a partial backup has a summary and is an error",
			message: []string{
				"backsnap step=backup exit=3", "errors=2", summary,
				`{"message_type":"error","error":{"message":"open /data/a: permission denied"},"during":"archival","item":"/data/a"}`,
				`{"message_type":"error","error":{"message":"read failed"},"during":"archival","item":"/data/b"}`,
				`{"message_type":"exit_error","code":3,"message":"Warning: at least one source file could not be read"}`,
			},
			exit: 3,
			want: restic.Report{Step: "backup", Exit: 3, Errors: 2, Summary: done, Lines: []string{
				"open /data/a: permission denied", "/data/b: read failed", "Warning: at least one source file could not be read",
			}},
			err: "2 files could not be read: open /data/a: permission denied; /data/b: read failed; Warning: at least one source file could not be read",
		},
		{
			name: "a missing bucket is named once",
			message: []string{
				"backsnap step=check exit=124", "errors=0",
				"Stat(<config/>) returned error, retrying after 825.907686ms: Stat: The specified bucket does not exist.",
				"Load(<key/1234abcd>, 0, 0) returned error, retrying after 2.716165528s: Stat: The specified bucket does not exist.",
				"signal terminated received, cleaning up",
				`{"message_type":"exit_error","code":130,"message":"Fatal: unable to open config file: context canceled\nIs there a repository at the following location?\ns3:http://s3/b"}`,
			},
			exit: 124,
			want: restic.Report{Step: "check", Exit: 124, Lines: []string{"Stat: The specified bucket does not exist.", "s3:http://s3/b"}},
			err:  "the repository did not answer within 1m0s; does its bucket exist?: Stat: The specified bucket does not exist.; s3:http://s3/b",
		},
		{
			name:    "a summary that was cut off is none",
			message: []string{"backsnap step=backup exit=0", "errors=0", summary[:len(summary)-20]},
			want:    restic.Report{Step: "backup", Lines: []string{summary[:len(summary)-20]}},
			err:     "restic ended without a summary: " + summary[:len(summary)-20],
		},
		{
			name:    "a summary that names no snapshot is none",
			message: []string{"backsnap step=backup exit=0", `{"message_type":"summary","data_added":1}`},
			want:    restic.Report{Step: "backup"},
			err:     "restic ended without a summary",
		},
		{
			name:    "the check alone is no backup",
			message: []string{"backsnap step=check exit=0", "errors=0", summary},
			want:    restic.Report{Step: "check", Summary: done},
			err:     "restic ended without a summary",
		},
		{
			name:    "the tail of the log, with a summary, is no report",
			message: []string{status, summary, "fatal: something"},
			want:    restic.Report{Lines: []string{"fatal: something"}},
			err:     "restic ended without a summary: fatal: something",
		},
		{
			name:    "killed before it could report",
			message: []string{status, `{"message_type":"sta`},
			exit:    137,
			want:    restic.Report{Exit: 137, Lines: []string{`{"message_type":"sta`}},
			err:     `restic was killed, most likely because it ran out of memory: {"message_type":"sta`,
		},
		{
			name:    "a report that the container's exit code belies",
			message: []string{"backsnap step=backup exit=0", "errors=0", summary},
			exit:    137,
			want:    restic.Report{Step: "backup", Exit: 1, Lines: []string{"the mover reports exit 0, its container exit 137"}},
			err:     "exit 1: the mover reports exit 0, its container exit 137",
		},
		{
			name:    "a failure after a summary has made no copy",
			message: []string{"backsnap step=backup exit=1", "errors=0", summary, "Fatal: unable to save snapshot"},
			exit:    1,
			want:    restic.Report{Step: "backup", Exit: 1, Lines: []string{"Fatal: unable to save snapshot"}},
			err:     "exit 1: Fatal: unable to save snapshot",
		},
		{
			name:    "user and password are in no quote",
			message: []string{"backsnap step=check exit=1", "errors=0", "dial rest:https://jo:p@ss/w@rest.example/repo: refused"},
			exit:    1,
			want:    restic.Report{Step: "check", Exit: 1, Lines: []string{"dial rest:https://rest.example/repo: refused"}},
			err:     "exit 1: dial rest:https://rest.example/repo: refused",
		},
		{
			name: "nothing at all",
			exit: 1,
			want: restic.Report{Exit: 1},
			err:  "exit 1",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := restic.ReadReport(strings.Join(test.message, "\n"), test.exit)
			equal(t, "report", test.want, got)
			said := ""
			if err := got.Err(restic.StepBackup); err != nil {
				said = err.Error()
			}
			equal(t, "error", test.err, said)
		})
	}
}

// A message is cut anywhere: it never reads as a success that it was not.
func TestReadReportOfACutMessage(t *testing.T) {
	whole := strings.Join([]string{"backsnap step=backup exit=0", "errors=0", summary}, "\n")
	for n := range len(whole) {
		got := restic.ReadReport(whole[:n], 0)
		if got.Err(restic.StepBackup) == nil {
			t.Fatalf("%q reads as a backup", whole[:n])
		}
	}
}

func TestInitThatFindsARepository(t *testing.T) {
	existed := restic.ReadReport("backsnap step=check exit=0\nerrors=0\n", 0)
	equal(t, "error", error(nil), existed.Err(restic.StepInit))
	equal(t, "existed", true, existed.Existed())
	made := restic.ReadReport("backsnap step=init exit=0\nerrors=0\n"+`{"message_type":"initialized","id":"1","repository":"/r"}`, 0)
	equal(t, "error", error(nil), made.Err(restic.StepInit))
	equal(t, "existed", false, made.Existed())
	wrong := restic.ReadReport("backsnap step=check exit=12\nerrors=0\n", 12)
	equal(t, "existed", false, wrong.Existed())
	equal(t, "error", "the password is wrong", wrong.Err(restic.StepInit).Error())
}

func TestExitCodes(t *testing.T) {
	want := map[restic.Exit]catalog.Code{
		0: "", 1: catalog.CodeMover, 2: catalog.CodeMover, 3: catalog.CodeRepoPartial, 10: catalog.CodeNoRepository,
		11: catalog.CodeRepoLocked, 12: catalog.CodeRepoPassword, 77: catalog.CodeMover, 124: catalog.CodeMover,
		127: catalog.CodeMover, 130: catalog.CodeMover, 137: catalog.CodeMover,
	}
	for exit, code := range want {
		equal(t, exit.String(), code, exit.Code())
	}
}

func TestReadLine(t *testing.T) {
	const id = "8174d253d51fa83ca7cd3e3b4654146042e92b2355ef11e8915e5e68a4d0a5b5"
	for line, want := range map[string]restic.Line{
		"": {},
		`{"message_type":"verbose_status","action":"new"}`:                                                      {},
		`{"message_type":"status","seconds_elapsed":2,"total_bytes":100,"bytes_done":50,"seconds_remaining":3}`: {Status: &restic.Status{Bytes: 50, Total: 100, Rate: 25, Left: 3 * time.Second}},
		`{"message_type":"summary","total_bytes_processed":7,"data_added_packed":3,"snapshot_id":"` + id + `"}`: {Summary: &restic.Summary{Snapshot: id, Bytes: 7, Added: 3}},
		`{"message_type":"error","error":{"message":"permission denied"},"item":"/data/x"}`:                     {Text: "/data/x: permission denied"},
		`{"message_type":"exit_error","code":12,"message":"Fatal: wrong password or no key found"}`:             {Text: "Fatal: wrong password or no key found"},
		"  dial https://me:secret@s3.example.com: refused\n":                                                    {Text: "dial https://s3.example.com: refused"},
	} {
		if got := restic.ReadLine([]byte(line)); !reflect.DeepEqual(want, got) {
			t.Errorf("%q:\n-want %+v\n+got  %+v", line, want, got)
		}
	}
}

// restic does not know how much a program will write.
func TestStatusOfAnImage(t *testing.T) {
	status, ok := restic.ReadStatus([]byte(`{"message_type":"status","seconds_elapsed":10,"bytes_done":1000}`))
	equal(t, "read", true, ok)
	equal(t, "of 5000", restic.Status{Bytes: 1000, Total: 5000, Rate: 100, Left: 40 * time.Second}, status.Of(5000))
	equal(t, "of less than there is", restic.Status{Bytes: 1000, Total: 1000, Rate: 100}, status.Of(900))
	equal(t, "of files", status, status.Of(0))
}
