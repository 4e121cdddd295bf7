package cli

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// podFlags say how the pod of a mover is made, whatever it does. Movers are
// root, but where addUser has added a flag for that.
type podFlags struct {
	image                    string
	requests, limits         string
	priorityClass            string
	pullSecrets, tolerations string
	serviceAccount           string
	runAsUser                int64

	pod restic.Pod // what check has read
}

// add adds the flags.
func (o *podFlags) add(f *pflag.FlagSet) {
	f.StringVar(&o.image, "restic-image", offsite.DefaultImage, "Image of the movers")
	f.StringVar(&o.requests, "mover-requests", "", "What a mover asks of its node, `cpu=Q,memory=Q`, 0 for nothing; default: cpu=100m,memory=256Mi")
	f.StringVar(&o.limits, "mover-limits", "", "What a mover may have at most, `cpu=Q,memory=Q`, 0 for any; default: memory=1Gi. restic's GOMEMLIMIT follows")
	f.StringVar(&o.priorityClass, "mover-priority-class", "", "PriorityClass of the movers")
	f.StringVar(&o.pullSecrets, "mover-pull-secret", "", "Secrets to pull the movers' image with, `NAME,...`, beside the movers")
	f.StringVar(&o.tolerations, "mover-toleration", "", "Taints that the movers tolerate, `KEY[=VALUE][:EFFECT],...`")
	f.StringVar(&o.serviceAccount, "mover-service-account", "", "ServiceAccount of the movers; default: the repository's, or the namespace's own")
}

// addUser adds the flag of movers that need not be root.
func (o *podFlags) addUser(f *pflag.FlagSet) {
	f.Int64Var(&o.runAsUser, "run-as-user", 0, "`UID` that the movers run as, for namespaces that enforce Pod Security restricted; 0: root, which reads every file")
}

// check reads the flags; it refuses values that make no sense.
func (o *podFlags) check() (err error) {
	o.pod = restic.DefaultPod()
	p := &o.pod
	if err := quantities("mover-requests", o.requests, &p.CPU, &p.Memory); err != nil {
		return err
	}
	if err := quantities("mover-limits", o.limits, &p.CPULimit, &p.MemoryLimit); err != nil {
		return err
	}
	if err := within("cpu", p.CPU, p.CPULimit); err != nil {
		return err
	}
	if err := within("memory", p.Memory, p.MemoryLimit); err != nil {
		return err
	}
	if o.runAsUser < 0 {
		return fmt.Errorf("run-as-user %d: want a uid", o.runAsUser)
	}
	p.PriorityClass, p.ServiceAccount, p.User = o.priorityClass, o.serviceAccount, o.runAsUser
	if p.PullSecrets, err = names(o.pullSecrets); err != nil {
		return fmt.Errorf("mover-pull-secret: %w", err)
	}
	for flag, name := range map[string]string{"mover-priority-class": o.priorityClass, "mover-service-account": o.serviceAccount} {
		if _, err := names(name); err != nil || strings.Contains(name, ",") {
			return fmt.Errorf("%s %q: want the name of one object", flag, name)
		}
	}
	p.Tolerations, err = tolerations(o.tolerations)
	return err
}

// lockWait says how long a mover waits for the lock of somebody else.
type lockWait struct{ retryLock time.Duration }

// add adds the flag.
func (o *lockWait) add(f *pflag.FlagSet) {
	f.DurationVar(&o.retryLock, "retry-lock", restic.DefaultRetryLock, "How long a mover waits for another's lock in the repository; 0s: not at all")
}

// check refuses values that make no sense.
func (o *lockWait) check() error {
	if o.retryLock < 0 {
		return fmt.Errorf("retry-lock %s: must not be negative", o.retryLock)
	}
	return nil
}

// moverFlags say how movers are made that copy, and where.
type moverFlags struct {
	podFlags
	lockWait
	inNamespace           bool
	deadline, ttl         time.Duration
	cacheClaim, cacheSize string
	limitUpload           int
}

// add adds the flags.
func (o *moverFlags) add(f *pflag.FlagSet) {
	o.podFlags.add(f)
	o.addUser(f)
	o.lockWait.add(f)
	f.BoolVar(&o.inNamespace, "in-namespace", false, "Run the movers beside the app, with the repositories of its own namespace: needs no right beyond that")
	f.DurationVar(&o.deadline, "mover-deadline", offsite.DefaultDeadline, "The longest that restic may take for one copy")
	f.DurationVar(&o.ttl, "mover-ttl", restic.DefaultPod().Keep, "How long a finished mover stands if no run collects its result")
	f.StringVar(&o.cacheClaim, "cache-claim", "", "PersistentVolumeClaim beside the movers that keeps restic's cache; default: a folder that goes with the pod")
	f.StringVar(&o.cacheSize, "cache-size", "", "The `size` that this folder may grow to")
	f.IntVar(&o.limitUpload, "limit-upload", 0, "`KiB/s` that one mover sends at most; 0: any")
}

// check reads the flags; it refuses values that make no sense. namespace is
// that of the repositories.
func (o *moverFlags) check(backupNamespace string) error {
	if err := cmp.Or(o.podFlags.check(), o.lockWait.check()); err != nil {
		return err
	}
	if err := onePlace(o.inNamespace, backupNamespace); err != nil {
		return err
	}
	switch {
	case o.deadline < time.Second:
		return fmt.Errorf("mover-deadline %s: want at least 1s", o.deadline)
	case o.ttl < time.Minute:
		return fmt.Errorf("mover-ttl %s: want at least 1m, in which its result can be read", o.ttl)
	case o.limitUpload < 0:
		return fmt.Errorf("limit-upload %d: want KiB/s, or 0", o.limitUpload)
	case o.cacheClaim != "" && o.cacheSize != "":
		return fmt.Errorf("--cache-claim together with --cache-size: want one or the other")
	}
	if claims, err := names(o.cacheClaim); err != nil || len(claims) > 1 {
		return fmt.Errorf("cache-claim %q: want the name of one claim", o.cacheClaim)
	}
	if o.cacheSize != "" {
		if size, err := resource.ParseQuantity(o.cacheSize); err != nil || size.Sign() <= 0 {
			return fmt.Errorf("cache-size %q: want a size such as 5Gi", o.cacheSize)
		}
	}
	o.pod.Keep, o.pod.CacheClaim, o.pod.CacheSize = o.ttl, o.cacheClaim, o.cacheSize
	return nil
}

// onePlace refuses two places for the movers.
func onePlace(inNamespace bool, backupNamespace string) error {
	if inNamespace && backupNamespace != offsite.DefaultBackupNamespace {
		return errors.New("--in-namespace together with --backup-namespace: want one or the other")
	}
	return nil
}

// apply puts what check has read into r.
func (o *moverFlags) apply(r *offsite.Request) {
	r.Image, r.Deadline, r.InNamespace = o.image, o.deadline, o.inNamespace
	r.Pod, r.UploadLimit, r.RetryLock = o.pod, o.limitUpload, o.retryLock
}

// quantities reads `cpu=500m,memory=1Gi`. What is not named stays; 0 is none.
func quantities(flag, text string, cpu, memory *string) error {
	if text == "" {
		return nil
	}
	for part := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		quantity, err := resource.ParseQuantity(value)
		into := map[string]*string{"cpu": cpu, "memory": memory}[name]
		if into == nil || err != nil || quantity.Sign() < 0 {
			return fmt.Errorf("%s %q: want cpu=500m,memory=1Gi, or one of both", flag, text)
		}
		if *into = value; quantity.IsZero() {
			*into = ""
		}
	}
	return nil
}

// within refuses a request above its limit, as the server would.
func within(name, request, limit string) error {
	if request == "" || limit == "" {
		return nil
	}
	if r, l := resource.MustParse(request), resource.MustParse(limit); r.Cmp(l) > 0 {
		return fmt.Errorf("a mover cannot ask for %[1]s=%[2]s and have %[1]s=%[3]s at most: raise --mover-limits, or lower --mover-requests", name, request, limit)
	}
	return nil
}

// names are the names of objects between the commas of text, none for "".
func names(text string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	list := strings.Split(text, ",")
	for i, name := range list {
		list[i] = strings.TrimSpace(name)
		if problems := validation.IsDNS1123Subdomain(list[i]); len(problems) > 0 {
			return nil, fmt.Errorf("%q is no name of an object: %s", list[i], problems[0])
		}
	}
	return list, nil
}

// tolerations reads `dedicated=backup:NoSchedule,spot`, as kubectl taint
// spells taints.
func tolerations(text string) ([]restic.Toleration, error) {
	if text == "" {
		return nil, nil
	}
	var list []restic.Toleration
	for part := range strings.SplitSeq(text, ",") {
		taint, effect, some := strings.Cut(strings.TrimSpace(part), ":")
		key, value, _ := strings.Cut(taint, "=")
		known := effect == "NoSchedule" || effect == "PreferNoSchedule" || effect == "NoExecute"
		if some != known || len(validation.IsQualifiedName(key))+len(validation.IsValidLabelValue(value)) > 0 {
			return nil, fmt.Errorf("mover-toleration %q: want KEY, KEY=VALUE or KEY=VALUE:EFFECT, EFFECT one of NoSchedule, PreferNoSchedule, NoExecute", part)
		}
		list = append(list, restic.Toleration{Key: key, Value: value, Effect: effect})
	}
	return list, nil
}
