//! Keys of other implementations that Umbra does not follow: what the operator is told about each.

/// A key of other implementations that Umbra does not follow.
#[derive(Debug)]
pub(crate) struct Foreign {
    /// The key, wherever it stands.
    pub(crate) key: &'static str,
    /// What the operator is told.
    pub(crate) why: &'static str,
}

/// Keys that other implementations follow and that can be left aside without harm: each is a warning.
pub(crate) const IGNORED: &[Foreign] = &[
    foreign("user", "umbra does not change its user yet; start it as the user it is to be"),
    foreign("daemon", "umbra stays in the foreground; let a service manager start it"),
    foreign("pid-file", "umbra writes no pid file; let a service manager start it"),
    foreign("pid_file", "umbra writes no pid file; let a service manager start it"),
    foreign("log-file", "umbra logs to its standard error output; redirect that"),
    foreign("log_file", "umbra logs to its standard error output; redirect that"),
    foreign("log", "the level is set with -v and -q, and logs go to the standard error output"),
    foreign("verbose", "use the flags -v and -q"),
    foreign("use_syslog", "umbra logs to its standard error output; redirect that"),
    foreign("dns", "names are resolved by the system; a resolver of one's own is not supported yet"),
    foreign("dns_server", "names are resolved by the system; a resolver of one's own is not supported yet"),
    foreign("nameserver", "names are resolved by the system; a resolver of one's own is not supported yet"),
    foreign("dns_cache_size", "names are resolved by the system, which has its own cache"),
    foreign("ipv6_first", "both address families are tried as RFC 8305 says"),
    foreign("prefer_ipv6", "both address families are tried as RFC 8305 says"),
    foreign("keep_alive", "not supported yet; the idle time ends dead sessions"),
    foreign(
        "reuse_port",
        "no other process can share umbra's ports; its own workers share what one of them accepts",
    ),
    foreign("mptcp", "multipath TCP is not supported yet; plain TCP is used"),
    foreign(
        "udp_mtu",
        "datagrams of every length are carried; udp_fragment says whether they may be cut on the way",
    ),
    foreign("outbound_udp_allow_fragmentation", "udp_fragment says whether datagrams may be cut on the way"),
    foreign("inbound_send_buffer_size", "the system sizes its buffers as it needs them"),
    foreign("inbound_recv_buffer_size", "the system sizes its buffers as it needs them"),
    foreign("outbound_send_buffer_size", "the system sizes its buffers as it needs them"),
    foreign("outbound_recv_buffer_size", "the system sizes its buffers as it needs them"),
    foreign(
        "local_udp_address",
        "datagrams come in where streams do; use an inbound of its own with the mode udp_only",
    ),
    foreign(
        "local_udp_port",
        "datagrams come in where streams do; use an inbound of its own with the mode udp_only",
    ),
    foreign("udp_weight", "each association uses a random server"),
    foreign("tcp_weight", "servers are tried by chance; groups[] of paths[] know weights"),
    foreign("balancer", "servers are tried by chance; groups[] of paths[] choose by health and latency"),
    foreign("runtime", "use workers"),
    foreign("replay_attack", "replays are always refused"),
    foreign("libopenssl", "cryptography is built in"),
    foreign("libmbedtls", "cryptography is built in"),
    foreign("libsodium", "cryptography is built in"),
];

/// The keys of a manager, which opens and shuts a server's ports as it is told. It is an error at a server, which without it would not serve
/// what somebody counts on, and a warning at a client, which has no use for it and whose file may be the server's.
pub(crate) const OF_MANAGERS: &[Foreign] =
    &[foreign("manager_address", MANAGERS), foreign("manager_port", MANAGERS)];

const MANAGERS: &str = "managers are not supported yet: at a server an error, at a client left aside";

/// Keys that other implementations follow and whose absence would be unsafe or wrong: each is an error, unless its
/// value turns it off.
pub(crate) const REFUSED: &[Foreign] = &[
    foreign(
        "ipv6_only",
        "not supported yet; to serve one address family, listen on an address of that family",
    ),
    foreign(
        "outbound_bind_addr",
        "not supported yet, and without it traffic would leave elsewhere; remove it if that is acceptable",
    ),
    foreign(
        "local_ipv4_address",
        "not supported yet, and without it traffic would leave elsewhere; remove it if that is acceptable",
    ),
    foreign(
        "local_ipv6_address",
        "not supported yet, and without it traffic would leave elsewhere; remove it if that is acceptable",
    ),
    foreign(
        "outbound_bind_interface",
        "not supported yet, and without it traffic would leave elsewhere; remove it if that is acceptable",
    ),
    foreign(
        "outbound_fwmark",
        "not supported yet, and without it traffic would be routed otherwise; remove it if that is acceptable",
    ),
    foreign(
        "fwmark",
        "not supported yet, and without it traffic would be routed otherwise; remove it if that is acceptable",
    ),
    foreign(
        "interface",
        "not supported yet, and without it traffic would leave elsewhere; remove it if that is acceptable",
    ),
    foreign("tcp_redir", "transparent inbounds are not supported yet; use the SOCKS5 inbound"),
    foreign("udp_redir", "transparent inbounds are not supported yet; use the SOCKS5 inbound"),
];

const fn foreign(key: &'static str, why: &'static str) -> Foreign {
    Foreign { key, why }
}
