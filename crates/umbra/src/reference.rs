//! What a key and its flag are; the file reader, the command line and the manual are made from the one table of them.

mod table;

pub(crate) use table::SETTINGS;

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
    /// Idle seconds of an association.
    UdpTimeout,
    /// Associations at a time.
    UdpMaxAssociations,
    /// Those of one source.
    UdpMaxAssociationsPerSource,
    /// From whom replies come.
    UdpFiltering,
    /// Whether datagrams may be cut.
    UdpFragment,
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
