//! The one table of keys and flags: the file reader, the command line and the manual are made from it.

/// A setting that Umbra follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Id {
    /// The Shadowsocks server's address.
    Server,
    /// Its port.
    ServerPort,
    /// The secret.
    Password,
    /// The method.
    Method,
    /// Where the client listens.
    LocalAddress,
    /// On which port.
    LocalPort,
    /// What the client's inbound speaks.
    Protocol,
    /// Idle seconds.
    Timeout,
    /// Streams, datagrams or both.
    Mode,
    /// `TCP_NODELAY`.
    NoDelay,
    /// TCP Fast Open.
    FastOpen,
    /// Heads in several reads.
    SegmentedHeads,
    /// Worker threads.
    Workers,
    /// Descriptor limit.
    Nofile,
    /// A server that is listed and not used.
    Disabled,
    /// A note for people.
    Remarks,
}

/// The objects of a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The file's outermost object.
    Root,
    /// One of `servers[]`.
    Server,
    /// One of `locals[]`.
    Inbound,
}

/// What a value is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text.
    Text,
    /// Text that is never shown.
    Secret,
    /// A number from 0 to 65535, or the same in quotes.
    Port,
    /// A number from 0, or the same in quotes.
    Number,
    /// `true` or `false`.
    Switch,
}

/// The programs that have a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Both ends.
    Both,
    /// The client only.
    Client,
}

/// A flag of the command line that sets a key.
#[derive(Debug)]
pub(crate) struct Flag {
    /// `-s`, if there is a short form.
    pub(crate) short: Option<char>,
    /// `--server`.
    pub(crate) long: &'static str,
    /// Other long forms.
    pub(crate) aliases: &'static [&'static str],
    /// What stands for the value in help.
    pub(crate) value: &'static str,
    /// Which programs have it.
    pub(crate) reach: Reach,
}

/// One setting: its key, flag, kind, default and effect.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Its identity in the code.
    pub(crate) id: Id,
    /// The key.
    pub(crate) key: &'static str,
    /// Other keys that mean the same.
    pub(crate) aliases: &'static [&'static str],
    /// Where the key may stand.
    pub(crate) places: &'static [Place],
    /// What its value is made of.
    pub(crate) kind: Kind,
    /// The flag that beats it.
    pub(crate) flag: Option<Flag>,
    /// What holds when nothing is said.
    pub(crate) default: &'static str,
    /// What it does.
    pub(crate) help: &'static str,
}

/// A key of other implementations that Umbra does not follow.
#[derive(Debug)]
pub(crate) struct Foreign {
    /// The key, wherever it stands.
    pub(crate) key: &'static str,
    /// What the operator is told.
    pub(crate) why: &'static str,
}

impl Setting {
    /// The setting that `key` names at `place`.
    pub(crate) fn find(place: Place, key: &str) -> Option<&'static Self> {
        let named = |setting: &&Self| setting.key == key || setting.aliases.contains(&key);
        SETTINGS.iter().filter(|setting| setting.places.contains(&place)).find(named)
    }
}

/// The key at `place` that `unknown` was probably meant to be.
pub(crate) fn nearest_key(place: Place, unknown: &str) -> Option<&'static str> {
    let settings = SETTINGS.iter().filter(|setting| setting.places.contains(&place));
    let own = settings.map(|setting| setting.key);
    let lists = LISTS.iter().copied().filter(|_| place == Place::Root);
    nearest(unknown, own.chain(lists))
}

/// The one of `known` that is spelled most like `text`, if any is near.
pub(crate) fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let rated = known.map(|name| (strsim::jaro_winkler(&text.to_lowercase(), name), name));
    let best = rated.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(rating, _)| *rating >= NEAR_ENOUGH).map(|(_, name)| name)
}

/// The keys of the two lists of the extended form.
pub(crate) const LISTS: [&str; 2] = ["servers", "locals"];

/// Below this, two spellings have too little in common for a hint to help.
const NEAR_ENOUGH: f64 = 0.75;

const SHARED: &[Place] = &[Place::Root, Place::Server];
const EVERYWHERE: &[Place] = &[Place::Root, Place::Server, Place::Inbound];
const OF_INBOUNDS: &[Place] = &[Place::Root, Place::Inbound];
const OF_ROOT: &[Place] = &[Place::Root];

const fn flag(short: Option<char>, long: &'static str, value: &'static str, reach: Reach) -> Option<Flag> {
    Some(Flag { short, long, aliases: &[], value, reach })
}

const fn flag_also(
    short: char,
    long: &'static str,
    aliases: &'static [&'static str],
    value: &'static str,
    reach: Reach,
) -> Option<Flag> {
    Some(Flag { short: Some(short), long, aliases, value, reach })
}

/// Every setting that Umbra follows.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        id: Id::Server,
        key: "server",
        aliases: &["address"],
        places: SHARED,
        kind: Kind::Text,
        flag: flag_also('s', "server", &["server-addr"], "ADDRESS[:PORT]", Reach::Both),
        default: "client: none; server: 0.0.0.0",
        help: "The Shadowsocks server: for a client where it is, for a server where to listen. With or without a \
               port; IPv6 with a port stands in brackets.",
    },
    Setting {
        id: Id::ServerPort,
        key: "server_port",
        aliases: &["port"],
        places: SHARED,
        kind: Kind::Port,
        flag: flag(Some('p'), "server-port", "PORT", Reach::Both),
        default: "8388",
        help: "The Shadowsocks server's port. A server may listen on port 0: the system chooses a free one.",
    },
    Setting {
        id: Id::Password,
        key: "password",
        aliases: &[],
        places: SHARED,
        kind: Kind::Secret,
        flag: flag(Some('k'), "password", "PASSWORD", Reach::Both),
        default: "none",
        help: "The secret that both ends hold: any text for aes-128-gcm, aes-256-gcm and chacha20-ietf-poly1305; a \
               key in base64 for the 2022 methods. `umbra key METHOD` makes one.",
    },
    Setting {
        id: Id::Method,
        key: "method",
        aliases: &[],
        places: SHARED,
        kind: Kind::Text,
        flag: flag_also('m', "method", &["encrypt-method"], "METHOD", Reach::Both),
        default: "chacha20-ietf-poly1305",
        help: "How streams are encrypted; both ends must say the same.",
    },
    Setting {
        id: Id::LocalAddress,
        key: "local_address",
        aliases: &["local"],
        places: OF_INBOUNDS,
        kind: Kind::Text,
        flag: flag_also('b', "local-address", &["local-addr"], "ADDRESS[:PORT]", Reach::Client),
        default: "127.0.0.1",
        help: "Where the client listens for SOCKS5 programs, with or without a port. Anyone who reaches it may use it.",
    },
    Setting {
        id: Id::LocalPort,
        key: "local_port",
        aliases: &[],
        places: OF_INBOUNDS,
        kind: Kind::Port,
        flag: flag(Some('l'), "local-port", "PORT", Reach::Client),
        default: "1080",
        help: "The port on which the client listens; 0 lets the system choose a free one.",
    },
    Setting {
        id: Id::Protocol,
        key: "protocol",
        aliases: &[],
        places: OF_INBOUNDS,
        kind: Kind::Text,
        flag: None,
        default: "socks",
        help: "What the client's inbound speaks. `socks` is the only one so far.",
    },
    Setting {
        id: Id::Timeout,
        key: "timeout",
        aliases: &[],
        places: EVERYWHERE,
        kind: Kind::Number,
        flag: flag(Some('t'), "timeout", "SECONDS", Reach::Both),
        default: "300",
        help: "A session that carries nothing for this many seconds ends: 1 to 86400.",
    },
    Setting {
        id: Id::Mode,
        key: "mode",
        aliases: &[],
        places: EVERYWHERE,
        kind: Kind::Text,
        flag: None,
        default: "tcp_only",
        help: "`tcp_only`. `tcp_and_udp` is accepted with a warning, since datagrams are not carried yet; `udp_only` \
               is refused.",
    },
    Setting {
        id: Id::NoDelay,
        key: "no_delay",
        aliases: &[],
        places: OF_ROOT,
        kind: Kind::Switch,
        flag: flag(None, "no-delay", "", Reach::Both),
        default: "true",
        help: "Send small writes at once (TCP_NODELAY).",
    },
    Setting {
        id: Id::FastOpen,
        key: "fast_open",
        aliases: &[],
        places: OF_ROOT,
        kind: Kind::Switch,
        flag: flag(None, "fast-open", "", Reach::Both),
        default: "false",
        help: "Let clients carry their first payload in the SYN, and carry it so to a server, where the system allows it (RFC \
               7413). A client then says that a way stands before its server has answered; with several servers it does not ask \
               for it, and on the way to a target it is never used.",
    },
    Setting {
        id: Id::SegmentedHeads,
        key: "segmented_heads",
        aliases: &[],
        places: SHARED,
        kind: Kind::Switch,
        flag: None,
        default: "false",
        help: "Let a 2022 stream begin in several pieces, as behind transports that cut the first write. Without need it helps \
               probers: the specification wants one piece.",
    },
    Setting {
        id: Id::Workers,
        key: "workers",
        aliases: &[],
        places: OF_ROOT,
        kind: Kind::Number,
        flag: flag(None, "workers", "N", Reach::Both),
        default: "one for each processor",
        help: "Worker threads: 1 to 1024.",
    },
    Setting {
        id: Id::Nofile,
        key: "nofile",
        aliases: &[],
        places: OF_ROOT,
        kind: Kind::Number,
        flag: flag(None, "nofile", "N", Reach::Both),
        default: "as many as the system allows",
        help: "How many files and sockets the process may hold open.",
    },
    Setting {
        id: Id::Disabled,
        key: "disabled",
        aliases: &[],
        places: &[Place::Server, Place::Inbound],
        kind: Kind::Switch,
        flag: None,
        default: "false",
        help: "An entry that is kept and not used. What is wrong in it is only a warning.",
    },
    Setting {
        id: Id::Remarks,
        key: "remarks",
        aliases: &["id", "name", "group", "tag"],
        places: EVERYWHERE,
        kind: Kind::Text,
        flag: None,
        default: "none",
        help: "A note for people; nothing depends on it.",
    },
];

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
    foreign("udp_timeout", "datagrams are not carried yet"),
    foreign("udp_max_associations", "datagrams are not carried yet"),
    foreign("udp_mtu", "datagrams are not carried yet"),
    foreign("local_udp_address", "datagrams are not carried yet"),
    foreign("local_udp_port", "datagrams are not carried yet"),
    foreign("udp_weight", "datagrams are not carried yet"),
    foreign("tcp_weight", "servers are tried in the order of the list"),
    foreign("balancer", "servers are tried in the order of the list"),
    foreign("runtime", "use workers"),
    foreign("security", "replays are always refused, and insecure methods always denied"),
    foreign("libopenssl", "cryptography is built in"),
    foreign("libmbedtls", "cryptography is built in"),
    foreign("libsodium", "cryptography is built in"),
    foreign("tunnel_remote", "this end opens no tunnel"),
    foreign("tunnel_remote_port", "this end opens no tunnel"),
    foreign("tunnel_port", "this end opens no tunnel"),
    foreign("plugin_opts", "without a plugin it has no effect"),
    foreign("plugin_args", "without a plugin it has no effect"),
    foreign("plugin_mode", "without a plugin it has no effect"),
    foreign("version", "the file is read as it is"),
    foreign("bytes_used", "data limits are not supported"),
    foreign("bytes_remaining", "data limits are not supported"),
];

/// Keys that other implementations follow and whose absence would be unsafe or wrong: each is an error, unless its
/// value turns it off.
pub(crate) const REFUSED: &[Foreign] = &[
    foreign(
        "plugin",
        "plugins are not supported yet, and without one the other end cannot be spoken to; remove it at both ends",
    ),
    foreign(
        "acl",
        "access lists are not supported yet, and without it sessions would go where it forbids; remove it if that is acceptable",
    ),
    foreign(
        "forbidden_ip",
        "forbidden targets are not supported yet, and without it sessions would go where it forbids; remove it if that is acceptable",
    ),
    foreign("manager_address", "managers are not supported yet; list the ports in servers[]"),
    foreign("manager_port", "managers are not supported yet; list the ports in servers[]"),
    foreign("port_password", "write each port as one of servers[], with its server_port and password"),
    foreign(
        "users",
        "several users of one port are not supported yet; give each a server of its own in servers[]",
    ),
    foreign(
        "one_time_auth",
        "one-time authentication is obsolete and not supported; every method here authenticates",
    ),
    foreign("auth", "one-time authentication is obsolete and not supported; every method here authenticates"),
    foreign("key", "keys of SIP006 are not supported; use password"),
    foreign(
        "ipv6_only",
        "not supported yet; to serve one address family, listen on an address of that family",
    ),
    foreign(
        "outbound_bind_addr",
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
    foreign("forward_address", "tunnels are not supported yet; use the SOCKS5 inbound"),
    foreign("forward_port", "tunnels are not supported yet; use the SOCKS5 inbound"),
    foreign(
        "socks5_auth_config_path",
        "SOCKS5 passwords are not supported yet, and without them the inbound would be open; remove it and listen on 127.0.0.1",
    ),
    foreign("online_config", "online configuration is not supported yet; list the servers in servers[]"),
    foreign("tcp_redir", "transparent inbounds are not supported yet; use the SOCKS5 inbound"),
    foreign("udp_redir", "transparent inbounds are not supported yet; use the SOCKS5 inbound"),
];

const fn foreign(key: &'static str, why: &'static str) -> Foreign {
    Foreign { key, why }
}
