# shellcheck shell=sh
# Give node $1 of cluster $2 a mount namespace of its own, held at $3, with the
# folders in $4 at the places where Kubernetes expects them: several nodes can
# then run on one machine, and all that was mounted goes with the namespace.
node=$1 id=$2 pin=$3 data=$4

# A namespace can only be held on a mount that does not propagate.
dir=$(dirname "$pin")
mkdir -p "$dir"
while mountpoint -q "$pin"; do umount "$pin"; done
mountpoint -q "$dir" || mount --bind "$dir" "$dir"
mount --make-private "$dir"
: >"$pin"

mkdir -p "$data/kubelet" "$data/pods" "$data/containers" "$data/sysctl" \
	/var/lib/kubelet /var/lib/cni /var/log/pods /var/log/containers /run/containerd

# The kubelet sets these for the whole machine unless they have these values.
printf '1\n' >"$data/sysctl/vm.overcommit_memory"
printf '0\n' >"$data/sysctl/vm.panic_on_oom"
printf '10\n' >"$data/sysctl/kernel.panic"
printf '1\n' >"$data/sysctl/kernel.panic_on_oops"
printf '1000000\n' >"$data/sysctl/kernel.keys.root_maxkeys"
printf '25000000\n' >"$data/sysctl/kernel.keys.root_maxbytes"

# shellcheck disable=SC2016 # expanded inside
unshare --mount="$pin" --propagation slave sh -euc '
	data=$1
	mount --bind "$data/kubelet" /var/lib/kubelet
	mount --make-shared /var/lib/kubelet # for the mounts of CSI to reach pods
	mount --bind "$data/pods" /var/log/pods
	mount --bind "$data/containers" /var/log/containers
	mount -t tmpfs tmpfs /var/lib/cni
	mount -t tmpfs tmpfs /run/containerd
	for file in "$data"/sysctl/*; do
		mount --bind "$file" "/proc/sys/$(basename "$file" | tr . /)"
	done
' sh "$data"

# The roots below which the kubelet makes the cgroups of its pods; in the one
# tree of version 2, controllers are handed down from folder to folder.
for root in /sys/fs/cgroup /sys/fs/cgroup/*; do
	mountpoint -q "$root" || continue
	case $(stat -f -c %T "$root") in cgroup*) ;; *) continue ;; esac
	mkdir -p "$root/backsnap-$id/node-$node"
	for dir in "$root" "$root/backsnap-$id"; do
		[ -e "$dir/cgroup.subtree_control" ] || continue
		read -r controllers <"$dir/cgroup.controllers" || :
		for controller in $controllers; do
			echo "+$controller" >"$dir/cgroup.subtree_control" || :
		done
	done
	# All pods together weigh as much as twenty processes of the host, not as one:
	# else a database needs minutes to start while the machine is busy.
	for weight in cpu.shares=20480 cpu.weight=2000; do
		file=$root/backsnap-$id/${weight%=*}
		[ ! -e "$file" ] || echo "${weight#*=}" >"$file"
	done
done
