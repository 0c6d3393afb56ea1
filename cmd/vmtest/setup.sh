#!/bin/bash
# Fetches what building, testing and demonstrating Mooring need, from Debian packages only.
#
# The build tools are installed on this machine. All that the virtual machine needs goes into a
# cache folder instead: QEMU, a Debian tree for the guest and the kernels. Nothing there is
# installed here and no service is started.
set -euo pipefail

usage() {
	cat <<USAGE
usage: setup.sh build | vm | kernel VERSION | control | kube | servers | all
  build           install the compilers and generators on this machine
  vm              QEMU, the guest's Debian tree and the 6.1 kernel, into the cache folder
  kernel VERSION  one more kernel into the cache folder: 5.10, 6.1 or 6.12
  control         etcd, Prometheus, runc and the CNI plugins, unpacked into the cache folder
  kube            Kubernetes, containerd, helm, etcd and Prometheus for the end-to-end test,
                  into the cache folder; needs vm and a Go toolchain, and ten minutes the first time
  servers         database servers for the tests into the cache folder: those of Debian 11 and 13
                  beside the guest's of Debian 12, and two that the Go toolchain builds; needs vm
  all             build and vm
The cache folder is \$MOORING_CACHE, else \$XDG_CACHE_HOME/mooring, else ~/.cache/mooring.
USAGE
}

readonly cache="${MOORING_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mooring}"
readonly keyring=/usr/share/keyrings/debian-archive-keyring.gpg

readonly build_packages=(
	bash ca-certificates clang clang-format debian-archive-keyring gcc git kmod libbpf-dev
	libc6-dev libprotobuf-dev linux-libc-dev llvm make mmdebstrap protobuf-compiler util-linux xz-utils
)
# A change in either list is noticed by its hash, and the tree is made again.
readonly qemu_packages=(qemu-system-x86)
readonly guest_packages=(
	bash dmsetup e2fsprogs iproute2 iputils-ping kmod mariadb-server postgresql
	postgresql-contrib procps redis-server sysbench util-linux
)
# Unpacked for the end-to-end test, where the first two run on the host and the others in the
# guest, and for the tests of rules and dashboards.
readonly control_packages=(etcd-server prometheus runc containernetworking-plugins)

# Built for the end-to-end test by the Go toolchain. The Kubernetes version is the one that the
# module in kube_module requires.
readonly kube_module="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/e2e/kube"
readonly kube_programs=(kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl)
readonly go_programs=(
	github.com/containerd/containerd/v2/cmd/containerd@v2.4.2
	github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2@v2.4.2
	github.com/containerd/containerd/v2/cmd/ctr@v2.4.2
	helm.sh/helm/v3/cmd/helm@v3.22.0
)

# Unpacked for the tests, a tree for each release. Their names for PostgreSQL bring its version.
readonly server_suites=(bullseye trixie)
readonly bullseye_servers=(mariadb-server postgresql postgresql-contrib redis-server)
readonly trixie_servers=(mariadb-server postgresql postgresql-contrib redis-server valkey-server)

# Built for the tests by the Go toolchain; their versions are those of the module.
readonly servers_module="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/dbservers"
readonly servers_programs=(ferretdb mysqlserver)

say() { printf 'setup: %s\n' "$*"; }

refuse() {
	printf 'setup: %s\n' "$*" >&2
	exit 2
}

# check_system refuses any system this script has no answer for, before anything is changed.
check_system() {
	local id=unknown version=unknown
	if [[ -r /etc/os-release ]]; then
		id=$(. /etc/os-release && printf %s "${ID:-unknown}")
		version=$(. /etc/os-release && printf %s "${VERSION_ID:-unknown}")
	fi
	[[ $id == debian && $version == 12 ]] ||
		refuse "this script knows Debian 12 only and this is $id $version; install by hand: ${build_packages[*]}"
	command -v apt-get >/dev/null || refuse "apt-get is missing"
	[[ $(uname -m) == x86_64 ]] || refuse "the virtual machine is x86_64 only and this machine is $(uname -m)"
}

need_root() {
	[[ $EUID -eq 0 ]] || refuse "$1 needs root: run this script by sudo"
}

# missing_packages prints those of its arguments that are not installed.
missing_packages() {
	local package status
	for package; do
		status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=
		[[ $status == installed ]] || printf '%s\n' "$package"
	done
}

build() {
	local missing
	mapfile -t missing < <(missing_packages "${build_packages[@]}")
	if ((${#missing[@]} == 0)); then
		say "build tools are there"
		return
	fi
	need_root "installing packages"
	say "installing ${missing[*]}"
	apt-get -q update
	DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends install "${missing[@]}"
}

# host_sources prints "URI SUITE" of each Debian archive this machine's own apt is set up with,
# so that a mirror chosen by its operator is the one used here.
host_sources() {
	apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		awk '$1 == "Debian" && $4 == "main" { print $2, $3 }' | sort -u
}

# mirror prints the URI of the archive that carries bookworm itself.
mirror() {
	local uri
	uri=$(host_sources | awk '($2 == "bookworm" || $2 == "oldstable") && !n++ { print $1 }')
	[[ -n $uri ]] || refuse "apt on this machine has no index of Debian bookworm: set its sources up and run apt-get update"
	printf '%s\n' "$uri"
}

# source_line prints the one-line form of a source signed by Debian's own keys.
source_line() { printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$1" "$2"; }

# bookworm_sources prints the lines for bookworm, its updates and its security archive.
bookworm_sources() {
	local uri suite
	while read -r uri suite; do
		source_line "$uri" "$suite"
	done < <(host_sources | awk '$2 ~ /^(bookworm|oldstable)(-updates|-security)?$/')
}

# proxy_options prints what mmdebstrap would not take over from this machine's apt by itself.
proxy_options() {
	local name value
	for name in Acquire::http::Proxy Acquire::https::Proxy; do
		value=$(apt-config shell value "$name" | sed -n "s/^value='\(.*\)'\$/\1/p")
		[[ -z $value ]] || printf -- '--aptopt=%s "%s"\n' "$name" "$value"
	done
}

# put moves a finished tree to its place. A tree is made under another name and gets its stamp
# last, so that an interrupted run never leaves half a tree that looks whole. A running virtual
# machine holds use.lock shared: its 9p root must not change under it.
put() {
	local made=$1 place=$2 stamp=$3
	printf '%s\n' "$stamp" >"$made/.stamp"
	if [[ -e $place ]]; then
		say "replacing $place once no virtual machine uses it"
	fi
	exec 8>"$cache/use.lock"
	flock 8
	rm -rf "$place.old"
	[[ ! -e $place ]] || mv "$place" "$place.old"
	mv "$made" "$place"
	exec 8>&-
	rm -rf "$place.old"
}

stamp_is() { [[ -r $1/.stamp && $(<"$1/.stamp") == "$2" ]]; }

# stamp_of hashes what a tree is made from; the number is the layout's and changes with the code.
stamp_of() { printf '%s\n' 1 "$@" | sha256sum | cut -d' ' -f1; }

# qemu unpacks QEMU 10 with every library it needs. Debian 12's own QEMU 7.2 is not used: a
# guest that patches its kernel text, as each attached BPF program does, hangs in it.
qemu() {
	local stamp options
	stamp=$(stamp_of "${qemu_packages[@]}")
	if stamp_is "$cache/qemu" "$stamp"; then
		say "QEMU is there"
		return
	fi
	say "unpacking QEMU into $cache/qemu"
	mapfile -t options < <(proxy_options)
	{
		bookworm_sources
		source_line "$(mirror)" bookworm-backports
	} >"$work/qemu.list"
	mmdebstrap --quiet --mode=root --variant=extract --architectures=amd64 "${options[@]}" \
		--aptopt='APT::Default-Release "bookworm-backports"' \
		--include="$(IFS=,; printf %s "${qemu_packages[*]}")" \
		bookworm "$work/qemu" - <"$work/qemu.list"
	[[ -x $work/qemu/usr/bin/qemu-system-x86_64 ]] || refuse "the package has no qemu-system-x86_64"
	put "$work/qemu" "$cache/qemu" "$stamp"
}

# rootfs makes the guest's Debian tree. mmdebstrap starts no service while it configures it.
rootfs() {
	local stamp options
	stamp=$(stamp_of "${guest_packages[@]}")
	if stamp_is "$cache/rootfs" "$stamp"; then
		say "the guest's Debian tree is there"
		return
	fi
	say "making the guest's Debian tree in $cache/rootfs"
	mapfile -t options < <(proxy_options)
	bookworm_sources >"$work/rootfs.list"
	mmdebstrap --quiet --mode=root --variant=minbase --architectures=amd64 "${options[@]}" \
		--include="$(IFS=,; printf %s "${guest_packages[*]}")" \
		bookworm "$work/rootfs" - <"$work/rootfs.list"
	put "$work/rootfs" "$cache/rootfs" "$stamp"
}

# suite_apt sets apt_options to an apt that knows the given suite and nothing of this machine.
suite_apt() {
	local suite=$1 dir=$work/apt-$1
	mkdir -p "$dir/state/lists/partial" "$dir/cache/archives/partial"
	: >"$dir/status"
	case $suite in
	bookworm) bookworm_sources ;;
	*) source_line "$(mirror)" "$suite" ;;
	esac >"$dir/sources.list"
	apt_options=(
		-q -o "Dir::State=$dir/state" -o "Dir::State::status=$dir/status" -o "Dir::Cache=$dir/cache"
		-o "Dir::Etc::sourcelist=$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null
		-o APT::Architecture=amd64 -o APT::Sandbox::User=root -o Acquire::Languages=none
	)
	apt-get "${apt_options[@]}" update
}

# kernel unpacks the newest kernel of one Debian release under its own release name, and points
# the version's name at it.
kernel() {
	local version=$1 suite package release apt_options made
	case $version in
	5.10) suite=bullseye ;;
	6.1) suite=bookworm ;;
	6.12) suite=bookworm-backports ;;
	*) refuse "no kernel $version: 5.10, 6.1 and 6.12 are known" ;;
	esac
	if [[ -e $cache/kernels/$version/.stamp ]]; then
		say "kernel $(<"$cache/kernels/$version/.stamp") is there"
		return
	fi
	suite_apt "$suite"
	package=$(apt-cache "${apt_options[@]}" depends linux-image-amd64 | awk '$1 == "Depends:" && !n++ { print $2 }')
	[[ -n $package ]] || refuse "suite $suite of this machine's mirror has no linux-image-amd64"
	release=${package#linux-image-}
	say "unpacking kernel $release into $cache/kernels/$release"
	made=$work/kernel-$version
	mkdir -p "$made"
	(cd "$made" && apt-get "${apt_options[@]}" download "$package" && dpkg -x ./*.deb . && rm ./*.deb)
	[[ -d $made/lib/modules/$release && -e $made/boot/vmlinuz-$release ]] ||
		refuse "package $package does not hold kernel $release"
	depmod -b "$made" "$release"
	mkdir -p "$cache/kernels"
	put "$made" "$cache/kernels/$release" "$release"
	ln -sfn "$release" "$cache/kernels/$version"
}

# control unpacks the programs that the end-to-end test takes from Debian.
control() {
	local stamp apt_options made
	stamp=$(stamp_of "${control_packages[@]}")
	if stamp_is "$cache/control" "$stamp"; then
		say "etcd, Prometheus, runc and the CNI plugins are there"
		return
	fi
	suite_apt bookworm
	say "unpacking ${control_packages[*]} into $cache/control"
	made=$work/control
	mkdir -p "$made" "$work/control-debs"
	(cd "$work/control-debs" && apt-get "${apt_options[@]}" download "${control_packages[@]}")
	for package in "$work/control-debs"/*.deb; do
		dpkg -x "$package" "$made"
	done
	[[ -x $made/usr/bin/etcd && -x $made/usr/bin/promtool && -x $made/usr/sbin/runc && -x $made/usr/lib/cni/bridge ]] ||
		refuse "the packages ${control_packages[*]} do not hold the programs wanted"
	put "$made" "$cache/control" "$stamp"
}

# kube_build compiles Kubernetes, containerd and helm, one after the other. What is built says its
# version as a release does: kubelet and the API server compare theirs.
kube_build() {
	local stamp made version program
	stamp=$(stamp_of "${kube_programs[@]}" "${go_programs[@]}" "$(cat "$kube_module/go.mod" "$kube_module/go.sum")")
	if stamp_is "$cache/kube" "$stamp"; then
		say "Kubernetes, containerd and helm are there"
		return
	fi
	command -v go >/dev/null || refuse "building Kubernetes needs the Go toolchain that go.mod names, and there is no go in PATH"
	version=$(cd "$kube_module" && go list -m -f '{{.Version}}' k8s.io/kubernetes)
	made=$work/kube
	mkdir -p "$made/bin"
	for program in "${kube_programs[@]}"; do
		say "building $program $version"
		(cd "$kube_module" && CGO_ENABLED=0 go build -trimpath -o "$made/bin/$program" \
			-ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version" "k8s.io/kubernetes/cmd/$program")
	done
	for program in "${go_programs[@]}"; do
		say "building $program"
		CGO_ENABLED=0 GOBIN=$made/bin go install -trimpath -ldflags '-s -w' "$program"
	done
	put "$made" "$cache/kube" "$stamp"
}

# server_tree makes a Debian tree of one release with its database servers. As in the guest's, no
# service is started; what a server does not need to run is left out.
server_tree() {
	local suite=$1 stamp options
	local -n packages=${suite}_servers
	stamp=$(stamp_of "$suite" "${packages[@]}")
	if stamp_is "$cache/servers/$suite" "$stamp"; then
		say "the servers of $suite are there"
		return
	fi
	say "making the servers of $suite in $cache/servers/$suite"
	mapfile -t options < <(proxy_options)
	source_line "$(mirror)" "$suite" >"$work/$suite.list"
	mmdebstrap --quiet --mode=root --variant=minbase --architectures=amd64 "${options[@]}" \
		--aptopt='APT::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/mariadb/mariadb-test/*' \
		--customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*' \
		--include="$(IFS=,; printf %s "${packages[*]}")" \
		"$suite" "$work/$suite" - <"$work/$suite.list"
	mkdir -p "$cache/servers"
	put "$work/$suite" "$cache/servers/$suite" "$stamp"
}

# servers_build compiles the servers that are Go modules.
servers_build() {
	local stamp made program
	stamp=$(stamp_of "${servers_programs[@]}" "$(cat "$servers_module"/go.mod "$servers_module"/go.sum "$servers_module"/*/*.go)")
	if stamp_is "$cache/servers/go" "$stamp"; then
		say "${servers_programs[*]} are there"
		return
	fi
	command -v go >/dev/null || refuse "building ${servers_programs[*]} needs the Go toolchain that go.mod names, and there is no go in PATH"
	made=$work/go
	mkdir -p "$made/bin" "$cache/servers"
	say "building ${servers_programs[*]}"
	for program in "${servers_programs[@]}"; do
		(cd "$servers_module" && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$made/bin/$program" "./$program")
	done
	put "$made" "$cache/servers/go" "$stamp"
}

servers() {
	local suite missing
	mapfile -t missing < <(missing_packages mmdebstrap debian-archive-keyring)
	((${#missing[@]} == 0)) || refuse "${missing[*]} missing: run setup.sh build first"
	for suite in "${server_suites[@]}"; do
		server_tree "$suite"
	done
	servers_build
}

# locked runs its arguments with the cache to itself and a work folder that is gone afterwards.
# The folder lies in the cache so that a finished tree is moved by a rename.
locked() {
	need_root "filling the cache folder"
	mkdir -p "$cache"
	exec 9>"$cache/setup.lock"
	if ! flock -n 9; then
		say "waiting for another run of this script"
		flock 9
	fi
	# Only a run that was killed leaves a work folder, for the lock is ours now.
	rm -rf --one-file-system "$cache"/work.*
	work=$(mktemp -d "$cache/work.XXXXXX")
	chmod 755 "$work"
	trap 'rm -rf --one-file-system "$work"' EXIT
	trap 'exit 130' INT TERM HUP
	"$@"
}

vm() {
	local missing
	mapfile -t missing < <(missing_packages mmdebstrap kmod util-linux debian-archive-keyring)
	((${#missing[@]} == 0)) || refuse "${missing[*]} missing: run setup.sh build first"
	qemu
	rootfs
	kernel 6.1
}

kube() {
	[[ -e $cache/rootfs/.stamp && -e $cache/qemu/.stamp ]] || refuse "the virtual machine is missing: run setup.sh vm first"
	control
	kube_build
}

check_system
case "${1:-}/$#" in
build/1) build ;;
vm/1) locked vm ;;
kernel/2) locked kernel "$2" ;;
control/1) locked control ;;
kube/1) locked kube ;;
servers/1) locked servers ;;
all/1)
	build
	locked vm
	;;
*)
	usage >&2
	exit 2
	;;
esac
