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
    /// Ports, each with a password of its own.
    PortPassword,
    /// Who may come in.
    Users,
    /// A user's name.
    UserName,
    /// Where a user's sessions are passed on to.
    UserForward,
    /// A file of users, as shadowsocks-rust has it.
    UsersFile,
    /// One-time authentication.
    OneTimeAuth,
    /// Where a tunnel leads.
    ForwardAddress,
    /// To which port.
    ForwardPort,
    /// Where a tunnel listens, as the first implementation says it.
    TunnelPort,
    /// Whose PROXY headers are read.
    AcceptProxyProtocol,
    /// Which PROXY header is sent.
    SendProxyProtocol,
    /// What may be run although it is not safe.
    Security,
    /// Whether insecure methods may be named.
    InsecureMethods,
    /// No server in between.
    Direct,
    /// A SOCKS5 proxy in place of a server.
    OutboundProxy,
    /// Where a direct way does not lead.
    ForbiddenIp,
    /// Private networks as well.
    ForbidPrivate,
    /// What is exempt from that.
    AllowedIp,
    /// The plugin in front of the server.
    Plugin,
    /// Its options.
    PluginOpts,
    /// Its arguments.
    PluginArgs,
    /// What it carries.
    PluginMode,
    /// Servers from a document that is fetched.
    OnlineConfig,
    /// Where it is fetched from.
    ConfigUrl,
    /// How often.
    UpdateInterval,
    /// The version of a document of servers.
    Version,
    /// What is used of an allowance.
    BytesUsed,
    /// What is left of it.
    BytesRemaining,
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
    /// One of `users[]`, wherever they stand.
    User,
    /// The object `security`.
    Security,
    /// The object `online_config`.
    Online,
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
    /// Text, or a list of texts.
    Texts,
    /// Addresses and networks in one text, separated by commas, or a list of such. A list of none is one as well.
    Networks,
    /// A port, or a list of ports.
    Ports,
    /// An object whose keys are ports and whose values are secrets.
    PortPasswords,
    /// A list of objects.
    Objects(Place),
    /// An object.
    Object(Place),
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

impl Place {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Root, Self::Server, Self::Inbound, Self::User, Self::Security, Self::Online];

    /// How people find it in a file.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Root => "at the top of the file",
            Self::Server => "in servers[]",
            Self::Inbound => "in locals[]",
            Self::User => "in users[]",
            Self::Security => "in security",
            Self::Online => "in online_config",
        }
    }
}

impl Kind {
    /// What is said to whoever writes something else.
    pub(crate) fn wanted(self) -> &'static str {
        match self {
            Self::Text | Self::Secret => "wants text in quotes",
            Self::Port => "wants a port: a whole number from 0 to 65535",
            Self::Number => "wants a whole number",
            Self::Switch => "wants true or false",
            Self::Texts => "wants text in quotes, or a list of such",
            Self::Networks => {
                "wants addresses and networks like 10.0.0.0/8, in quotes and separated by commas, or a list of such"
            }
            Self::Ports => "wants a port, a whole number from 0 to 65535, or a list of such",
            Self::PortPasswords => "wants an object of ports and passwords: { \"8388\": \"…\", … }",
            Self::Objects(_) => "wants a list of objects: [ { … }, … ]",
            Self::Object(_) => "wants an object: { … }",
        }
    }
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
const OF_USERS: &[Place] = &[Place::User];

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
        kind: Kind::Texts,
        flag: flag_also('s', "server", &["server-addr"], "ADDRESS[:PORT]", Reach::Both),
        default: "client: none; server: 0.0.0.0",
        help: "The Shadowsocks server: for a client where it is, for a server where to listen. With or without a \
               port; IPv6 with a port stands in brackets. A list names several: a client chooses one for each session, a server \
               listens on all.",
    },
    Setting {
        id: Id::ServerPort,
        key: "server_port",
        aliases: &["port"],
        places: SHARED,
        kind: Kind::Ports,
        flag: flag(Some('p'), "server-port", "PORT", Reach::Both),
        default: "8388",
        help: "The Shadowsocks server's port. A server may listen on port 0: the system chooses a free one. \
               A list names several with the same password: a client chooses one for each session, a server listens on all.",
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
               key in base64 for the 2022 methods. `umbra key METHOD` makes one. A client that \
               is one of a 2022 port's `users` joins the port's key and its own with a colon.",
    },
    Setting {
        id: Id::PortPassword,
        key: "port_password",
        aliases: &[],
        places: SHARED,
        kind: Kind::PortPasswords,
        flag: None,
        default: "none",
        help: "Ports, each with a password of its own: `{ \"8388\": \"…\", \"8389\": \"…\" }`. `server_port` and `password` beside it \
               are left aside.",
    },
    Setting {
        id: Id::Users,
        key: "users",
        aliases: &[],
        places: EVERYWHERE,
        kind: Kind::Objects(Place::User),
        flag: None,
        default: "none",
        help: "Who may come in. At a client's inbound, names and passwords of SOCKS5 and HTTP programs, without which the door \
               is closed. At a server, Shadowsocks users: with a 2022 AES method each has a key of its own and `password` is the \
               key of the port (SIP023); with a SIP004 method each has a password of its own, and `password` is one more.",
    },
    Setting {
        id: Id::UserName,
        key: "name",
        aliases: &["user_name"],
        places: OF_USERS,
        kind: Kind::Text,
        flag: None,
        default: "none",
        help: "What the user is called. A SOCKS5 or HTTP program says it with the password.",
    },
    Setting {
        id: Id::Password,
        key: "password",
        aliases: &[],
        places: OF_USERS,
        kind: Kind::Secret,
        flag: None,
        default: "none",
        help: "The user's own secret, of the same kind as the server's.",
    },
    Setting {
        id: Id::UserForward,
        key: "forward",
        aliases: &[],
        places: OF_USERS,
        kind: Kind::Text,
        flag: None,
        default: "none",
        help: "`HOST:PORT` of another server, to which this user's sessions are passed on without being opened (SIP023, 2022 AES \
               methods only).",
    },
    Setting {
        id: Id::UsersFile,
        key: "socks5_auth_config_path",
        aliases: &[],
        places: OF_INBOUNDS,
        kind: Kind::Text,
        flag: None,
        default: "none",
        help: "A file of `users` in the form of shadowsocks-rust: `{ \"password\": { \"users\": [ { \"user_name\": …, \"password\": … } ] } }`.",
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
        help: "Where the client listens, with or without a port. Anyone who reaches it may use it, unless there are `users`.",
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
        flag: flag(None, "protocol", "PROTOCOL", Reach::Client),
        default: "mixed",
        help: "What the client's inbound speaks: `mixed` is SOCKS4, SOCKS4a, SOCKS5 and HTTP, told apart by the first byte; `socks` \
               leaves out HTTP, `http` is HTTP only; `tunnel` leads every connection to one target.",
    },
    Setting {
        id: Id::ForwardAddress,
        key: "forward_address",
        aliases: &["tunnel_remote"],
        places: OF_INBOUNDS,
        kind: Kind::Text,
        flag: flag_also('f', "forward-addr", &["forward"], "HOST:PORT", Reach::Client),
        default: "none",
        help: "Where a tunnel leads, with or without a port.",
    },
    Setting {
        id: Id::ForwardPort,
        key: "forward_port",
        aliases: &["tunnel_remote_port"],
        places: OF_INBOUNDS,
        kind: Kind::Port,
        flag: None,
        default: "none",
        help: "To which port a tunnel leads. With `tunnel_remote` and no port it is 53.",
    },
    Setting {
        id: Id::TunnelPort,
        key: "tunnel_port",
        aliases: &[],
        places: OF_INBOUNDS,
        kind: Kind::Port,
        flag: None,
        default: "`local_port`",
        help: "Where a tunnel listens, in place of `local_port`.",
    },
    Setting {
        id: Id::AcceptProxyProtocol,
        key: "accept_proxy_protocol",
        aliases: &[],
        places: EVERYWHERE,
        kind: Kind::Texts,
        flag: None,
        default: "none",
        help: "Addresses and networks of load balancers: their connections have to begin with a PROXY header (version 1 or 2), which \
               names the client. A header from anyone else is not read.",
    },
    Setting {
        id: Id::SendProxyProtocol,
        key: "send_proxy_protocol",
        aliases: &[],
        places: EVERYWHERE,
        kind: Kind::Text,
        flag: None,
        default: "none",
        help: "`v1` or `v2`: what a target is sent first, a PROXY header that names the client.",
    },
    Setting {
        id: Id::Direct,
        key: "direct",
        aliases: &[],
        places: OF_ROOT,
        kind: Kind::Switch,
        flag: flag(None, "direct", "", Reach::Client),
        default: "false",
        help: "A client without a server: sessions go straight to their targets, unencrypted.",
    },
    Setting {
        id: Id::OutboundProxy,
        key: "outbound_proxy",
        aliases: &[],
        places: OF_ROOT,
        kind: Kind::Secret,
        flag: flag(None, "outbound-proxy", "URL", Reach::Both),
        default: "none",
        help: "`socks5://[NAME:PASSWORD@]HOST:PORT`: a SOCKS5 proxy through which sessions leave; a client then needs no server.",
    },
    Setting {
        id: Id::ForbiddenIp,
        key: "forbidden_ip",
        aliases: &[],
        places: OF_ROOT,
        kind: Kind::Networks,
        flag: flag(None, "forbidden-ip", "LIST", Reach::Both),
        default: "server: loopback, unspecified, link-local, cloud metadata, multicast, broadcast; client: none",
        help: "Addresses and networks to which a server, or a client with `direct`, leads nobody, by whatever name or form they are \
               asked for; separated by commas, and without a prefix one address. It takes the place of the default; empty it \
               forbids nothing.",
    },
    Setting {
        id: Id::ForbidPrivate,
        key: "forbid_private",
        aliases: &[],
        places: OF_ROOT,
        kind: Kind::Switch,
        flag: flag(None, "forbid-private", "", Reach::Both),
        default: "false",
        help: "Forbid private, provider-shared (CGNAT), unique local and reserved networks as well. A new server should have it.",
    },
    Setting {
        id: Id::AllowedIp,
        key: "allowed_ip",
        aliases: &[],
        places: OF_ROOT,
        kind: Kind::Networks,
        flag: flag(None, "allowed-ip", "LIST", Reach::Both),
        default: "none",
        help: "Addresses and networks that are exempt from `forbidden_ip` and `forbid_private`.",
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
        id: Id::OneTimeAuth,
        key: "one_time_auth",
        aliases: &["auth"],
        places: SHARED,
        kind: Kind::Switch,
        flag: flag(Some('a'), "one-time-auth", "", Reach::Both),
        default: "false",
        help: "One-time authentication, obsolete: a client adds it to the old stream methods, a server wants it of every client. It \
               means nothing to other methods, which authenticate by themselves.",
    },
    Setting {
        id: Id::Security,
        key: "security",
        aliases: &[],
        places: OF_ROOT,
        kind: Kind::Object(Place::Security),
        flag: None,
        default: "none",
        help: "What may be run although it is not safe.",
    },
    Setting {
        id: Id::InsecureMethods,
        key: "insecure_methods",
        aliases: &[],
        places: &[Place::Security],
        kind: Kind::Text,
        flag: None,
        default: "warn",
        help: "`warn`: insecure methods run when they are named, with a warning; `deny`: they are an error.",
    },
    Setting {
        id: Id::Plugin,
        key: "plugin",
        aliases: &[],
        places: SHARED,
        kind: Kind::Text,
        flag: flag(None, "plugin", "PROGRAM", Reach::Both),
        default: "none",
        help: "A program that carries the streams between the two ends (SIP003), started, watched and ended with us: its name \
               in PATH, or its path. A link may only name one that is known as a plugin.",
    },
    Setting {
        id: Id::PluginOpts,
        key: "plugin_opts",
        aliases: &["plugin_options"],
        places: SHARED,
        kind: Kind::Secret,
        flag: flag(None, "plugin-opts", "OPTIONS", Reach::Both),
        default: "none",
        help: "The plugin's options: `key=value;key=value`, with `\\` before `;`, `=` and `\\`.",
    },
    Setting {
        id: Id::PluginArgs,
        key: "plugin_args",
        aliases: &[],
        places: SHARED,
        kind: Kind::Texts,
        flag: None,
        default: "none",
        help: "Arguments of the plugin's command line.",
    },
    Setting {
        id: Id::PluginMode,
        key: "plugin_mode",
        aliases: &[],
        places: SHARED,
        kind: Kind::Text,
        flag: flag(None, "plugin-mode", "MODE", Reach::Both),
        default: "tcp_only",
        help: "What the plugin carries: `tcp_only`. `tcp_and_udp` is accepted with a warning, since datagrams do not go \
               through plugins yet; `udp_only` is refused.",
    },
    Setting {
        id: Id::OnlineConfig,
        key: "online_config",
        aliases: &[],
        places: OF_ROOT,
        kind: Kind::Object(Place::Online),
        flag: None,
        default: "none",
        help: "Further servers of a client, from a document (SIP008) that is loaded at the start and again and again.",
    },
    Setting {
        id: Id::ConfigUrl,
        key: "config_url",
        aliases: &[],
        places: &[Place::Online],
        kind: Kind::Secret,
        flag: None,
        default: "none",
        help: "Where the document is: an `https` URL, or a file. Whoever knows it knows the passwords, so it is never shown whole.",
    },
    Setting {
        id: Id::UpdateInterval,
        key: "update_interval",
        aliases: &[],
        places: &[Place::Online],
        kind: Kind::Number,
        flag: None,
        default: "3600",
        help: "Seconds from one load to the next, give or take a tenth.",
    },
    Setting {
        id: Id::Version,
        key: "version",
        aliases: &[],
        places: OF_ROOT,
        kind: Kind::Number,
        flag: None,
        default: "1",
        help: "The version of a document of servers (SIP008), which is a configuration as it stands.",
    },
    Setting {
        id: Id::BytesUsed,
        key: "bytes_used",
        aliases: &[],
        places: OF_ROOT,
        kind: Kind::Number,
        flag: None,
        default: "none",
        help: "What a provider has counted, as such a document has it. It is shown; nothing depends on it.",
    },
    Setting {
        id: Id::BytesRemaining,
        key: "bytes_remaining",
        aliases: &[],
        places: OF_ROOT,
        kind: Kind::Number,
        flag: None,
        default: "none",
        help: "What is left of an allowance. It is shown; nothing depends on it.",
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
