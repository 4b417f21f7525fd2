//! What a key and its flag are; the file reader, the command line and the manual are made from the one table of them.

mod table;
mod ways;

/// Every setting that Umbra follows.
pub(crate) static SETTINGS: &[Setting] = &ALL;

static ALL: [Setting; table::SETTINGS.len() + ways::SETTINGS.len()] = {
    let mut all = [table::SETTINGS[0]; table::SETTINGS.len() + ways::SETTINGS.len()];
    let mut index = 0;
    while index < all.len() {
        let at = index.checked_sub(table::SETTINGS.len());
        all[index] = match at {
            None => table::SETTINGS[index],
            Some(at) => ways::SETTINGS[at],
        };
        index += 1;
    }
    all
};

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
    /// A manager of a server's ports, of which no setting of ours makes anything.
    Manager,
    /// An obfuscation of ShadowsocksR, likewise.
    Obfuscation,
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
    /// What an entry is called by others.
    Name,
    /// Ways through proxies.
    Paths,
    /// Ways of which a session takes one.
    Groups,
    /// Which session takes which way.
    Rules,
    /// Which way where no rule fits.
    Otherwise,
    /// Rules in the form of Shadowsocks' access lists.
    Acl,
    /// Rules in the form of Traffic Server.
    SocksConfig,
    /// The settings beside them.
    RecordsConfig,
    /// The proxies of a way.
    Hops,
    /// Seconds until a connection stands.
    ConnectTimeout,
    /// Seconds until a proxy has agreed.
    NegotiateTimeout,
    /// Who vouches for proxies.
    CaFile,
    /// A proxy as a URL.
    HopUrl,
    /// What a proxy speaks.
    HopProtocol,
    /// Whether a proxy is spoken with in TLS.
    Tls,
    /// Whose certificate it shows.
    TlsName,
    /// The ways in a group.
    Members,
    /// A member's share.
    Weight,
    /// In which order members are tried.
    Policy,
    /// How often one member is tried.
    AttemptsPerMember,
    /// How often members are tried in all.
    AttemptsMax,
    /// So many failures mark a member down.
    FailThreshold,
    /// Within so many seconds.
    FailWindow,
    /// How long it is left alone.
    RetryTime,
    /// How long a source stays with a member.
    Sticky,
    /// How long a member takes to come back.
    SlowStart,
    /// How many members may be down.
    EjectedPercentMax,
    /// What happens when all are.
    WhenAllDown,
    /// How long a session may look for a member.
    Patience,
    /// How members are probed.
    Probe,
    /// What has to go well.
    ProbeKind,
    /// Where a probe goes.
    ProbeTarget,
    /// What it asks for.
    ProbeUrl,
    /// Which answers are good.
    ProbeExpect,
    ProbeName,
    /// Seconds from one to the next.
    ProbeInterval,
    /// Seconds that one may take.
    ProbeTimeout,
    /// Good probes that bring a member back.
    ProbeRise,
    /// Bad ones that take it out.
    ProbeFall,
    /// Names of targets.
    Domains,
    /// Files of them.
    DomainFiles,
    /// Addresses of targets.
    Networks,
    /// Files of them.
    NetworkFiles,
    /// Ports of targets.
    TargetPorts,
    /// Where sessions come from.
    FromNetworks,
    /// Through which inbound.
    FromInbounds,
    /// Whose they are.
    FromUsers,
    /// Streams or datagrams.
    Transport,
    /// Where a rule leads.
    To,
    /// What whoever is refused is told.
    Reply,
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
    /// One of `paths[]`.
    Path,
    /// One of `hops[]`, or what `outbound_proxy` names.
    Hop,
    /// One of `groups[]`.
    Group,
    /// One of `members[]`.
    Member,
    /// The object `probe`.
    Probe,
    /// One of `rules[]`.
    Rule,
}

/// What a value is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text.
    Text,
    /// Text that is never shown.
    Secret,
    /// A key in base64 that is never shown either.
    Key,
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
    /// A port, a range of ports, or a list of such.
    PortRanges,
    /// A status of HTTP, a range of statuses, or a list of such.
    Statuses,
    /// Texts, of which an empty list is one as well.
    Entries,
    /// A proxy as a URL or an object, or a list of such.
    Hops,
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
#[derive(Clone, Copy, Debug)]
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
#[derive(Clone, Copy, Debug)]
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
    pub(crate) const ALL: [Self; 12] = [
        Self::Root,
        Self::Server,
        Self::Inbound,
        Self::User,
        Self::Security,
        Self::Online,
        Self::Path,
        Self::Hop,
        Self::Group,
        Self::Member,
        Self::Probe,
        Self::Rule,
    ];

    /// Whether a key that is not known there keeps everything from starting. It is Umbra's own, or all of it is there to protect, so a
    /// key that is left aside could be one without which traffic goes where it should not.
    pub(crate) fn is_strict(self) -> bool {
        match self {
            Self::Security
            | Self::Path
            | Self::Hop
            | Self::Group
            | Self::Member
            | Self::Probe
            | Self::Rule => true,
            Self::Root | Self::Server | Self::Inbound | Self::User | Self::Online => false,
        }
    }

    /// Whether other programs have such an object as well, with keys of their own.
    pub(crate) fn is_shared(self) -> bool {
        match self {
            Self::Root | Self::Server | Self::Inbound | Self::User | Self::Security | Self::Online => true,
            Self::Path | Self::Hop | Self::Group | Self::Member | Self::Probe | Self::Rule => false,
        }
    }

    /// How people find it in a file.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Root => "at the top of the file",
            Self::Server => "in servers[]",
            Self::Inbound => "in locals[]",
            Self::User => "in users[]",
            Self::Security => "in security",
            Self::Online => "in online_config",
            Self::Path => "in paths[]",
            Self::Hop => "in hops[]",
            Self::Group => "in groups[]",
            Self::Member => "in members[]",
            Self::Probe => "in probe",
            Self::Rule => "in rules[]",
        }
    }
}

impl Kind {
    /// What is said to whoever writes something else.
    pub(crate) fn wanted(self) -> &'static str {
        match self {
            Self::Text | Self::Secret => "wants text in quotes",
            Self::Key => "wants a key in base64, in quotes",
            Self::Port => "wants a port: a whole number from 0 to 65535",
            Self::Number => "wants a whole number",
            Self::Switch => "wants true or false",
            Self::Texts | Self::Entries => "wants text in quotes, or a list of such",
            Self::Networks => {
                "wants addresses and networks like 10.0.0.0/8, in quotes and separated by commas, or a list of such"
            }
            Self::Ports => "wants a port, a whole number from 0 to 65535, or a list of such",
            Self::PortRanges => "wants a port like 22, a range like \"8000-8999\", or a list of such",
            Self::Statuses => "wants a status like 204, a range like \"200-399\", or a list of such",
            Self::Hops => {
                "wants the URL of a proxy, like \"socks5h://10.0.0.1:1080\", an object, { … }, or a list of such"
            }
            Self::PortPasswords => "wants an object of ports and passwords: { \"8388\": \"…\", … }",
            Self::Objects(_) => "wants a list of objects: [ { … }, … ]",
            Self::Object(_) => "wants an object: { … }",
        }
    }
}

impl Id {
    /// Whether traffic would go where it should not if this were left aside.
    pub(crate) fn leads(self) -> bool {
        LEADING.contains(&self)
    }

    /// Whether something would be open that was meant to be shut if this were left aside.
    pub(crate) fn protects(self) -> bool {
        PROTECTING.contains(&self)
    }

    /// Whether `null` keeps everything from starting at `place`, since without a value more or other traffic could go where it should not:
    /// a rule that lost a condition fits more, and a way that lost its proxies is the direct one.
    ///
    /// Elsewhere `null` says nothing, as other programs mean it. The first implementation has it for the default of `port_password`,
    /// `dns_server` and the paths of libraries; those who write files write it for a server without a plugin, a note or a login. What is
    /// held by default without a word, such as `forbidden_ip`, stays so with it, and a switch that is `null` is off.
    pub(crate) fn wants_value(self, place: Place) -> bool {
        match place {
            Place::Rule => !matches!(self, Self::Name | Self::Remarks | Self::Disabled),
            Place::Root
            | Place::Server
            | Place::Inbound
            | Place::User
            | Place::Security
            | Place::Online
            | Place::Path
            | Place::Hop
            | Place::Group
            | Place::Member
            | Place::Probe => self.leads() || matches!(self, Self::Users | Self::UsersFile),
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

/// The key at `place` that `unknown` is nearly the same as, if traffic goes where that says.
pub(crate) fn leading_key(place: Place, unknown: &str) -> Option<&'static str> {
    let leading = SETTINGS.iter().filter(|setting| setting.places.contains(&place) && setting.id.leads());
    let lists = LISTS.iter().copied().filter(|_| place == Place::Root);
    let mut keys = leading.map(|setting| setting.key).chain(lists);
    // What begins with a key and goes on with another word is a key of its own.
    let is_longer = |key: &str| unknown.strip_prefix(key).is_some_and(|rest| rest.starts_with('_'));
    keys.find(|key| is_nearly(unknown, key) && !is_longer(key))
}

/// Whether `unknown` is nearly the same as `key`.
pub(crate) fn is_nearly(unknown: &str, key: &str) -> bool {
    strsim::jaro_winkler(&unknown.to_lowercase(), key) >= NEARLY_THE_SAME
}

/// The key at `place` that `unknown` was probably meant to be, if something would be open without that.
pub(crate) fn protecting_key(place: Place, unknown: &str) -> Option<&'static str> {
    let meant = nearest_key(place, unknown)?;
    Setting::find(place, meant).filter(|setting| setting.id.protects())?;
    Some(meant)
}

/// The one of `known` that is spelled most like `text`, if any is near.
pub(crate) fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let rated = known.map(|name| (strsim::jaro_winkler(&text.to_lowercase(), name), name));
    let best = rated.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(rating, _)| *rating >= NEAR_ENOUGH).map(|(_, name)| name)
}

/// The keys of the two lists of the extended form.
pub(crate) const LISTS: [&str; 2] = ["servers", "locals"];

/// What says where traffic goes, and through what; and where a server listens, which is everywhere where nothing is said.
const LEADING: [Id; 11] = [
    Id::Server,
    Id::Paths,
    Id::Groups,
    Id::Rules,
    Id::Otherwise,
    Id::Acl,
    Id::SocksConfig,
    Id::RecordsConfig,
    Id::OutboundProxy,
    Id::Tls,
    Id::CaFile,
];

/// What says who may come in, what is held back, and what nobody is led to; and what hides, or takes out of use.
const PROTECTING: [Id; 19] = [
    Id::Rules,
    Id::Otherwise,
    Id::Acl,
    Id::Password,
    Id::PortPassword,
    Id::Users,
    Id::UsersFile,
    Id::UserForward,
    Id::OneTimeAuth,
    Id::AcceptProxyProtocol,
    Id::ForbiddenIp,
    Id::ForbidPrivate,
    Id::AllowedIp,
    Id::UdpFiltering,
    Id::Security,
    Id::InsecureMethods,
    Id::Plugin,
    Id::PluginOpts,
    Id::Disabled,
];

/// One letter too many or too few, or two that have changed places.
const NEARLY_THE_SAME: f64 = 0.9;

/// Below this, two spellings have too little in common for a hint to help.
const NEAR_ENOUGH: f64 = 0.75;
