# shellcheck shell=sh
# Make the network namespace of node $1 of cluster $2, whose state is in $3:
# $4 and $5 are the ends of the link from the host to node 1, $6 and $7 those of
# the link from node 1 to node 2, $8 the addresses of all pods.
#
# Enter it with nsenter, not with ip netns exec: that mounts /sys anew, and the
# kubelet then finds no cgroups.
node=$1 id=$2 state=$3 host=$4 node1=$5 peer=$6 node2=$7 pods=$8
ns=backsnap-$id-$node

ip netns delete "$ns" 2>/dev/null || :
ip netns add "$ns"
inside() { nsenter --net="/run/netns/$ns" "$@"; }
inside ip link set lo up

# The way out leads nowhere. There must be one: without it, packets from the
# node to a Service find no route before they are redirected.
inside ip link add void0 type veth peer name void1
inside ip link set void0 up
inside ip link set void1 up
inside ip route add default dev void0

if [ "$node" = 1 ]; then
	ip link delete "bsnap-$id" 2>/dev/null || :
	ip link add "bsnap-$id" type veth peer name host netns "$ns"
	ip link set "bsnap-$id" alias "$state"
	ip address add "$host/30" dev "bsnap-$id"
	ip link set "bsnap-$id" up
	inside ip address add "$node1/30" dev host
	inside ip link set host up
else
	first=/run/netns/backsnap-$id-1
	nsenter --net="$first" ip link delete node2 2>/dev/null || :
	inside ip link add node1 type veth peer name node2 netns "backsnap-$id-1"
	nsenter --net="$first" ip address add "$peer/30" dev node2
	nsenter --net="$first" ip link set node2 up
	nsenter --net="$first" ip route add 10.244.2.0/24 via "$node2"
	inside ip address add "$node2/30" dev node1
	inside ip link set node1 up
	inside ip route add 10.244.1.0/24 via "$peer"
	inside ip route add "$node1/32" via "$peer"
fi

# Pods reach what is no pod by the address of their node: the host knows no way
# to theirs and would send the answers to its own default route.
# They start nothing there either.
inside iptables -w -A OUTPUT -o host -m conntrack --ctstate NEW -j REJECT
inside iptables -w -A FORWARD -o host -m conntrack --ctstate NEW -j REJECT
inside iptables -w -t nat -A POSTROUTING -s "$pods" ! -d "$pods" -j MASQUERADE

modprobe br_netfilter 2>/dev/null || : # it may be part of the kernel
# shellcheck disable=SC2016 # expanded inside
inside sh -euc '
	echo 1 >/proc/sys/net/ipv4/ip_forward
	echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6
	if [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]; then
		echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
	fi
'
