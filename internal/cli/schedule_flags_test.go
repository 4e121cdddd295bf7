package cli_test

import "time"

// scheduleWorld adds two schedules, one with two CronJobs.
func scheduleWorld(w *world) {
	lastOK := time.Date(2026, 11, 21, 1, 16, 0, 0, time.UTC)
	w.Schedules = []worldSchedule{
		{Name: "crm/weekly", Of: "weekly", Cron: "0 3 * * 0", Zone: "Europe/Berlin", Target: "sts/pg"},
		{Name: "shop/nightly", Of: "nightly", Cron: "15 1 * * *", Zone: "Etc/UTC", Target: "namespace/shop", LastOK: lastOK},
		{Name: "shop/nightly-prune", Of: "nightly", Cron: "45 3 * * *", Zone: "Etc/UTC", Target: "namespace/shop", LastOK: lastOK},
	}
}

// scheduleEffects are those of `schedule create`. What is meant for snapshot
// stands among the arguments of its CronJob as it was given.
func scheduleEffects() map[string]effect {
	const printed = "nightly --cron=@daily --dry-run=client -o yaml"
	effects := map[string]effect{
		"allow-missing-template-keys": {"nightly --cron=@daily --dry-run=client -o jsonpath={.nonsense}", "--allow-missing-template-keys=false", "nonsense is not found"},
		"alert-after":                 {printed, "--alert-after=2h", "kind: PrometheusRule"},
		"api-ports":                   {printed + " --network-policy", "--api-ports=8443", "port: 8443"},
		"check":                       {printed, "--check=main", "- repo\n"},
		"check-cron":                  {printed + " --check=main", "--check-cron=@hourly", " * * * *\n"},
		"cron":                        {"nightly --dry-run=client -o yaml", "--cron=@daily", "kind: CronJob"},
		"deadline":                    {printed, "--deadline=2h", "activeDeadlineSeconds: 7200"},
		"dry-run":                     {"nightly --cron=@daily", "--dry-run=server", "cronjob.batch/nightly created (server dry run)"},
		"history":                     {printed, "--history=7", "failedJobsHistoryLimit: 7"},
		"image":                       {printed, "--image=registry.example.com/backsnap", "image: registry.example.com/backsnap"},
		"image-pull-secret":           {printed, "--image-pull-secret=a,b", "- name: b\n"},
		"keep":                        {printed, "--keep=daily=7", "- prune\n"},
		"limits":                      {printed, "--limits=memory=77Mi", "memory: 77Mi"},
		"network-policy":              {printed, "--network-policy", "kind: NetworkPolicy"},
		"output":                      {"nightly --cron=@daily --dry-run=client", "-o json", `"kind": "CronJob"`},
		"priority-class":              {printed, "--priority-class=low", "priorityClassName: low"},
		"prune-cron":                  {printed + " --keep=daily=7", "--prune-cron=@hourly", " * * * *\n"},
		"requests":                    {printed, "--requests=cpu=77m", "cpu: 77m"},
		"retries":                     {printed, "--retries=7", "backoffLimit: 7"},
		"schedule":                    {printed + " --if-due", "--schedule=@daily", "- --schedule=@daily\n"},
		"start-within":                {printed, "--start-within=2h", "startingDeadlineSeconds: 7200"},
		"suspended":                   {printed, "--suspended", "suspend: true"},
		"template":                    {"nightly --cron=@daily --dry-run=client -o go-template", "--template={{.kind}}", "List"},
		"timezone":                    {printed, "--timezone=Europe/Berlin", "timeZone: Europe/Berlin"},
	}
	for flag, value := range map[string]string{
		"all-namespaces": "true", "backup-namespace": "elsewhere", "cache-claim": "cache", "cache-size": "5Gi", "consistency": "crash", "dump-timeout": "1m30s",
		"exclude-namespace": "kube-*", "field-selector": "metadata.name=data", "if-due": "true", "in-namespace": "true", "limit-upload": "512", "lock-timeout": "9m0s",
		"mover-deadline": "2h0m0s", "mover-limits": "memory=2Gi", "mover-priority-class": "low", "mover-pull-secret": "a", "mover-requests": "cpu=1", "mover-service-account": "uploader",
		"mover-toleration": "a=b:NoExecute", "mover-ttl": "1h0m0s", "movers-per-node": "2", "parallel": "1", "pin": "true", "plugin": "mysql", "remove-dump": "true", "repository": "main",
		"restic-image": "registry.example.com/restic", "retain": "3d", "retry-lock": "7s", "run-as-user": "999", "selector": "tier=data", "snapshot-class": "other", "timeout": "3m0s",
	} {
		effects[flag] = effect{printed, "--" + flag + "=" + value, "- --" + flag + "=" + value + "\n"}
	}
	return effects
}

func scheduleListEffects() map[string]effect {
	return map[string]effect{
		"all-namespaces":              {"", "-A", "crm         weekly"},
		"allow-missing-template-keys": {"-o jsonpath={.nonsense}", "--allow-missing-template-keys=false", "nonsense is not found"},
		"no-headers":                  {"", "--no-headers", "exit 0\nnightly"},
		"output":                      {"", "-o name", "cronjob.batch/nightly\n"},
		"template":                    {"-o go-template", "--template={{.kind}}", "ScheduleList"},
	}
}
