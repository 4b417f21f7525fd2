//! Every bound of the relay, with its unit and its reason.

use std::time::Duration;

/// A client that has not said what it wants by then is let go. For a Shadowsocks server it is also the one moment at which
/// every failed head ends, whatever was wrong with it.
pub const HANDSHAKE_SECS_MAX: Duration = Duration::from_secs(30);

/// Whoever has not been understood this long after connecting gives up its place if somebody else wants it. Honest clients have said
/// all by then: it is the time of one lost packet on a long way.
pub const SILENCE_SECS_MAX: Duration = Duration::from_secs(2);

/// The system's resolver tries several servers several times within this.
pub const RESOLVE_SECS_MAX: Duration = Duration::from_secs(10);

/// One address that does not answer: three SYNs have been lost by then.
pub const CONNECT_SECS_MAX: Duration = Duration::from_secs(10);

/// How long a target may take to come after a client has asked for it with BIND: the bound of the first SOCKS servers.
pub const BIND_SECS_MAX: Duration = Duration::from_secs(120);

/// SIP022, 3.2.2: as long as a timestamp is good for, twice, so that no packet outlives the window that would know it again; and a second
/// more, since times are told in whole seconds.
pub const SIP022_SESSION_SECS_MIN: Duration = Duration::from_secs(61);

/// Connections that may wait at the address of a BIND request; one is wanted.
pub const BIND_BACKLOG: u32 = 8;

/// A proxy on the way that has not agreed by then is taken for dead: it has had the time of a target's own connection.
pub const NEGOTIATE_SECS_MAX: Duration = Duration::from_secs(15);

/// A name server that has not answered a probe by then: its clients ask again after five.
pub const DNS_SECS_MAX: Duration = Duration::from_secs(5);

/// All paths of a group together, lookups included: three that are silent and one that is not.
pub const REACH_SECS_MAX: Duration = Duration::from_secs(60);

/// All addresses of one name together.
pub const DIAL_SECS_MAX: Duration = Duration::from_secs(20);

/// RFC 8305, section 5: the delay before the next address is tried beside the one under way.
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried: within a few seconds each has had its turn, and no answer makes us dial without end.
pub const ADDRESSES_MAX: usize = 16;

/// Addresses of one name that rules look at, where an association keeps them for the name's next datagrams. More than any name has that
/// somebody means to be reached by.
pub const ADDRESSES_OF_RULES_MAX: usize = 16;

/// How long a request's head waits, once or at most twice, for first payload to ride with it: a client on the same machine or
/// network has sent it by then, and one that waits for the server to speak first does not notice.
pub const FIRST_FLIGHT: Duration = Duration::from_millis(5);

/// RFC 1928, section 6: after a refusal the connection closes within 10 seconds. Two let the refusal arrive before.
pub const REFUSAL_SECS_MAX: Duration = Duration::from_secs(2);

/// How long a target may say nothing before a client that has announced its content is asked for it all the same: servers of old never
/// say anything, and clients that ask servers themselves wait no longer.
pub const CONTINUE_SECS_MAX: Duration = Duration::from_secs(1);

/// How long an HTTP client that has ended its direction waits for an answer to begin. Nearly always the end is that of the whole
/// connection, and nobody is there to wait; the few who end one direction alone are served by targets that answer at once.
pub const HALF_CLOSED_SECS_MAX: Duration = Duration::from_secs(10);

/// Bytes read and thrown away from a peer whose head has failed; then its window closes.
pub const DISCARDED_BYTES_MAX: usize = 64 * 1024;

/// How long the kernel keeps a connection of a door whose clients speak first to itself; then it is accepted all the same.
pub const ACCEPT_LATE_SECS: Duration = Duration::from_secs(3);

/// A small buffer: one full record of SIP004 with everything that may come before it.
pub const SMALL_BATCH_BYTES: usize = 16 * 1024 + BATCH_MARGIN_BYTES;

/// A medium buffer: room for the longest record of SIP022, which has to arrive whole.
pub const MEDIUM_BATCH_BYTES: usize = 64 * 1024 + BATCH_MARGIN_BYTES;

/// How much of a medium buffer a read may fill unless one record needs more, so that a blocked direction holds less than 64 KiB
/// with all that belongs to it.
pub const MEDIUM_READ_BYTES: usize = 48 * 1024 + BATCH_MARGIN_BYTES;

/// Bytes that a direction has carried before it may hold a large buffer: more than the kernel takes for a reader that reads
/// nothing, so that such a reader never comes to hold one.
pub const LARGE_AFTER_BYTES: u64 = 8 * 1024 * 1024;

/// A large buffer: where larger ones stop paying (measured: the knee is at 256 KiB).
pub const LARGE_BATCH_BYTES: usize = 256 * 1024 + BATCH_MARGIN_BYTES;

/// Room beside payload in a batch: lengths and tags of its records, the longest head before the first, and
/// [`RESEAL_BYTES`].
pub const BATCH_MARGIN_BYTES: usize = 2560;

/// Room kept free where what is opened will be sealed again: the longest head of a first record, and a last record that is too
/// short to be worth its tags.
pub const RESEAL_BYTES: usize = 2048;

/// Bytes that a pipe of the kernel holds at most, where they need not come into this process: as many as a large buffer.
pub const CONDUIT_BYTES: usize = 256 * 1024;

/// Pipes of the kernel that one worker may have, unless descriptors are few; flows beyond use buffers.
pub const CONDUITS_MAX: usize = 32;

/// The same of all workers together: half of the pipe memory that Linux gives a user without privileges.
pub const CONDUITS_IN_ALL_MAX: usize = 128;

/// Of the descriptors that are left for sessions and associations, one in so many is for pipes of the kernel.
pub const CONDUIT_SHARE: usize = 32;

/// Large buffers in use at a time on one worker, 16 MiB; flows beyond make do with medium ones.
pub const LARGE_BATCHES_MAX: usize = 64;

/// Free buffers that a worker keeps of each size: enough for what is in flight between two polls.
pub const POOLED_SMALL_MAX: usize = 64;
/// See [`POOLED_SMALL_MAX`].
pub const POOLED_MEDIUM_MAX: usize = 16;
/// See [`POOLED_SMALL_MAX`].
pub const POOLED_LARGE_MAX: usize = 16;

/// Bytes under way in each direction of a connection within the process: as many as a small read of the pump and of an HTTP
/// message together.
pub const PIPE_BYTES_MAX: usize = 32 * 1024;

/// The longest head of an HTTP answer, and the most of its body that is read ahead.
pub const HTTP_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Pieces handed to the kernel in one call; more would need a larger array on the stack for no gain.
pub const IO_PIECES_MAX: usize = 32;

/// Opened payloads shorter than this are moved together, since a piece costs the kernel more than the copy.
pub const GATHERED_PAYLOAD_BYTES_MAX: usize = 4096;

/// Batches that one direction carries before other sessions of the worker get their turn.
pub const BATCHES_PER_TURN: usize = 4;

/// Short reads in a row after which a direction goes back to a smaller buffer.
pub const SHORT_READS_MAX: u8 = 8;

/// Bytes left unsent in the kernel beyond which a bulk direction's socket takes no more: keeps sealed data from piling up
/// by the megabyte behind a slow reader.
pub const UNSENT_BYTES_MAX: u32 = 256 * 1024;

/// Whether the kernel has delivered what was written before a reset is looked for first after this, and each time after twice as long while
/// nothing moves: it tells of it to nobody who waits.
pub const DELIVERY_LOOK_DELAY: Duration = Duration::from_millis(1);

/// The longest time between two such looks: ten calls a second for a client that takes nothing.
pub const DELIVERY_LOOK_DELAY_MAX: Duration = Duration::from_millis(100);

/// Connections waiting to be accepted (the reference's 1024 is the least).
pub const BACKLOG: u32 = 4096;

/// Pause of a door that has no descriptor or memory for the next connection.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Descriptors kept out of the sessions' share: standard streams, name lookups, second attempts.
pub const RESERVED_DESCRIPTORS: usize = 32;

/// Descriptors that a worker needs for itself: its runtime's epoll, wake-up and signal pipe.
pub const WORKER_DESCRIPTORS: usize = 4;

/// Descriptors of a door: its own, and that of a connection that waits there for a place.
pub const DOOR_DESCRIPTORS: usize = 2;

/// Descriptors of one session: its client's and its target's.
pub const SESSION_DESCRIPTORS: usize = 2;

/// Descriptors of a pipe of the kernel: its two ends.
pub const CONDUIT_DESCRIPTORS: usize = 2;

/// A door that is short of descriptors or memory says so once in this time, however often it happens.
pub const SHORTAGE_LINE_PERIOD: Duration = Duration::from_secs(60);

/// A worker looks for memory to give back this long after sessions have ended.
pub const TRIM_DELAY: Duration = Duration::from_secs(2);

/// Threads per worker that wait for the system's resolver. A lookup that we have given up goes on in its thread for as long as
/// the system likes, so there are more than a few.
pub const RESOLVER_THREADS_MAX: usize = 128;

/// Lines about failed heads from one source per minute: enough for tools that ban at the third.
pub const BAN_LINES_PER_MINUTE: u32 = 10;

/// Sources that such lines are counted for at a time.
pub const BAN_SOURCES_MAX: usize = 4096;

/// Lines about failed sessions per second and door.
pub const FAILURE_LINES_PER_SECOND: u32 = 20;

/// Lines about members of groups per second and door: one that fails and serves in turn has one for each session.
pub const CHANGE_LINES_PER_SECOND: u32 = 20;

/// Sessions that must have gone before their memory is worth a walk through the heap.
pub const TRIM_SESSIONS_MIN: usize = 256;

/// Random bytes that a worker takes from the system at a time: salts for 32 sessions.
pub const RANDOM_POOL_BYTES: usize = 1024;

/// Datagrams, or runs of them that the kernel has put together, received at a time: beyond it nothing is gained, and other sockets wait.
pub const INBOX_SLOTS: usize = 32;

/// Room for the longest datagram, and so for the longest run. A little more than that, so that the beginnings of all slots do not
/// want the same few lines of the processor's cache.
pub const INBOX_SLOT_BYTES: usize = 64 * 1024 + 21 * 64;

/// What the kernel keeps for us at a door when we are late, and at a socket that many clients share, if it allows so much.
pub const DOOR_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// What the kernel keeps at a socket that one hop answers to, for one client: it takes memory only while something lies there.
pub const HOP_BUFFER_BYTES: usize = 1024 * 1024;

/// Datagrams in a run that the kernel cuts up: what every Linux since 4.18 takes.
pub const SEGMENTS_MAX: usize = 64;

/// Bytes in such a run: with all heads it must fit what the length of an IP packet can say.
pub const SEGMENTED_BYTES_MAX: usize = 64_999;

/// Messages handed to the kernel in one call.
pub const MESSAGES_MAX: usize = 32;

/// Sockets told of by one wait.
pub const SOCKET_EVENTS_MAX: usize = 256;

/// Errors in a row after which a socket is left for later: each is a message of the network about an earlier datagram.
pub const NETWORK_ERRORS_MAX: usize = 8;

/// Bytes that are laid out before they are sent: as much as a core's own cache holds beside everything else.
pub const ARENA_BYTES: usize = 256 * 1024;

/// Datagrams that leave in one run: the kernel's bound (`UDP_MAX_SEGMENTS` of kernels before 6.9).
pub const RUN_DATAGRAMS_MAX: usize = 64;

/// Bytes of one run: the kernel takes it for one datagram until it is cut.
pub const RUN_BYTES_MAX: usize = 65_000;

/// Batches received before what they came to is sent: those of several sockets to one client-facing socket leave together.
pub const DATAGRAM_BATCHES_PER_TURN: usize = 16;

/// Turns before other work of the worker has its own.
pub const DATAGRAM_TURNS_MAX: usize = 2;

/// How often idle associations are looked for.
pub const SWEEP_PERIOD: Duration = Duration::from_secs(1);

/// How long an association without its control connection may show that it was another's.
pub const ORPHAN_SECS_MAX: Duration = Duration::from_secs(10);

/// A connection on which nothing is said is asked for a sign of life after this.
pub const KEEPALIVE_DELAY: Duration = Duration::from_secs(30);

/// How long a sign of life is waited for before it is asked for again.
pub const KEEPALIVE_PERIOD: Duration = Duration::from_secs(10);

/// So many signs of life may be missed: then the connection is broken.
pub const KEEPALIVES_MISSED_MAX: u32 = 3;

/// A socket that associations share is left for another when nothing has come back through it for this long, and something was sent.
pub const TRUNK_SILENCE_SECS: Duration = Duration::from_secs(15);

/// The same at most, for a socket that has come in the place of others through which nothing came back either.
pub const TRUNK_SILENCE_SECS_MAX: Duration = Duration::from_secs(240);

/// Servers that a worker remembers to have said nothing: of more, the one that was given up first is forgotten.
pub const SILENT_SERVERS_MAX: usize = 64;

/// Idle for this long, an association gives back what is quickly made again.
pub const COOL_DELAY: Duration = Duration::from_secs(5);

/// Datagrams that wait for one name or hop to be found: the first few of a client that has just begun.
pub const WAITING_DATAGRAMS_MAX: usize = 16;

/// Bytes that wait for one name or hop; one datagram of the longest fits.
pub const WAITING_BYTES_MAX: usize = 64 * 1024;

/// Bytes that wait on one worker.
pub const WAITING_BYTES_PER_WORKER_MAX: usize = 8 * 1024 * 1024;

/// Names that one association may send to at a time; for one more, the oldest is forgotten, and looked up again when it is wanted.
pub const NAMES_PER_ASSOCIATION_MAX: usize = 64;

/// Lookups for datagrams that one worker has under way: the resolver's threads serve streams as well.
pub const LOOKUPS_MAX: usize = RESOLVER_THREADS_MAX / 2;

/// Lookups that one association has under way: one client with many names leaves most turns to others.
pub const LOOKUPS_PER_ASSOCIATION_MAX: usize = 4;

/// A name without an address is looked up again after this.
pub const NAME_RETRY_DELAY: Duration = Duration::from_secs(5);

/// A hop that could not be found is looked for again after this.
pub const HOP_RETRY_DELAY: Duration = Duration::from_secs(2);

/// Addresses that an association remembers to have sent to, where only these may answer.
pub const FILTERED_ADDRESSES_MAX: usize = 256;

/// Paths that one association's datagrams take at a time: more than an operator's rules tell apart for what one client does at once.
/// Each may hold two sockets and some control connections. For one more, the lane goes that was used the longest time ago.
pub const LANES_PER_ASSOCIATION_MAX: usize = 8;

/// Associations that are looked at for one that holds a socket, where sockets are spent: some microseconds of looking.
pub const IDLE_LOOKS_MAX: usize = 256;

/// Questions of our own that one worker has under way in datagrams: a few for each member of a large group.
pub const PROBES_MAX: usize = 256;

/// Associations of one worker at one door, unless descriptors are fewer: more than any one machine has clients, and a bound.
pub const ASSOCIATIONS_MAX: usize = 262_144;

/// Of the descriptors that are left for sessions and associations, one in so many is for associations.
pub const DATAGRAM_SHARE: usize = 3;

/// With more doors than this, each has its datagrams on one worker: a socket for each worker at each of two thousand doors would cost
/// more than the workers gain.
pub const SHARED_DOORS_MAX: usize = 64;

/// How often a port of the kernel's choice is given back because it is not free for datagrams as well.
pub const PORT_ATTEMPTS: usize = 32;

/// Packets on their way from one worker to another whose association they are of.
pub const STRAYED_MAX: usize = 256;

/// Addresses of which a worker knows whose packets have come from there, at doors with several users of SIP004: 400 KiB of them.
pub const RECALLED_SOURCES_MAX: usize = 4096;

/// Keys that a worker tries in a second on packets of strangers, at doors with several users of SIP004: a fifth of a core.
pub const TRIALS_PER_SEC: u64 = 250_000;

/// Keys that are tried at once after a quiet time: a crowd of users that comes back together is served.
pub const TRIALS_BURST: u64 = 100_000;

/// Sessions of a door that had to make room and are remembered all the same: 3 MiB of them.
pub const DISPLACED_MAX: usize = 32_768;

/// A trial session of a group's member that has told nothing for this long is forgotten, and another may be one: all that a session may
/// take to reach its target has passed twice.
pub const TRIAL_SECS_MAX: Duration = Duration::from_secs(60);

/// A measurement of a group's member is good for this long; then one session measures again.
pub const LATENCY_GOOD_FOR: Duration = Duration::from_secs(300);

/// A measurement that has not come by then is left to another session: nobody waits longer for one address.
pub const MEASURING_SECS_MAX: Duration = CONNECT_SECS_MAX;

/// What is slower than this is not worth telling apart, and sums of it cannot overflow.
pub const LATENCY_MAX: Duration = Duration::from_secs(3600);

/// Another member of a group has to be faster by this, and by an eighth, before sessions move to it: less is noise.
pub const LATENCY_GAIN_MIN: Duration = Duration::from_millis(2);

/// Sources that a group keeps with the member that served them: 4 MiB of them. For one more, the one that was away for the longest time
/// is forgotten.
pub const STICKY_SOURCES_MAX: usize = 32_768;

/// Sources whose time is over and that one session of a group takes out: more than it can add, and not many at once.
pub const STICKY_SWEPT_MAX: usize = 4;

/// By how much of the interval a probe may come earlier or later, in percent, whatever is asked for: probes never come at once.
pub const PROBE_JITTER_PERCENT_MAX: u8 = 90;

/// How long datagrams take a member of a group before it is asked again whether that is still well.
pub const REVIEW_SECS: Duration = Duration::from_secs(1);

/// How long a member of a group takes to answer, at most: several round trips to a far parent, which has to be asked before it can ask
/// anybody. For so long an answer to a trial by datagrams is waited for before the association takes another member; trials that are given up
/// are one that was waited for in vain when they have lasted so long together; and a member that says no to a session after more than that has
/// cost it its time.
pub const ANSWER_SECS: Duration = Duration::from_secs(3);

/// The shortest interval of probes that is kept to: a member is never asked as fast as we can.
pub const PROBE_INTERVAL_SECS_MIN: Duration = Duration::from_secs(1);

/// The longest interval of probes that is kept to; with one a day nothing is learned.
pub const PROBE_INTERVAL_SECS_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Names and networks of one rule: eight times the longest lists that are published. A name has at most 255 bytes, so the text
/// of them stays below what 32 bits count.
pub const RULE_ENTRIES_MAX: usize = 8_000_000;

/// Words of one rule that names are searched for.
pub const KEYWORDS_MAX: usize = 16_384;

/// Bytes of all words of one rule: their automaton takes some dozens of bytes for each.
pub const KEYWORD_BYTES_MAX: usize = 1024 * 1024;

/// Patterns of one rule that are more than a name or a suffix in other words. All are tried in one pass over the name.
pub const PATTERNS_MAX: usize = 4096;

/// One pattern in text: longer than any that a person wrote.
pub const PATTERN_BYTES_MAX: usize = 2048;

/// One pattern as a program: repetitions of repetitions end here. Patterns as people write them take a quarter of it.
pub const PATTERN_PROGRAM_BYTES_MAX: usize = 64 * 1024;

/// All patterns of one rule as a program; the largest number of common ones fits. The worst name for the worst of these takes 2 ms,
/// and for twice as large ones thirty times as long, since nothing of them could be remembered from one byte to the next.
pub const PATTERNS_PROGRAM_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a thread may remember of a rule's patterns to make later names fast.
pub const PATTERNS_CACHE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One line of a list: a pattern, and a note beside it.
pub const LIST_LINE_BYTES_MAX: usize = 2 * PATTERN_BYTES_MAX;

/// What is told of one file: enough to see what is the matter. The rest is counted.
pub const LIST_ERRORS_MAX: usize = 20;

/// A file of a list: eight million names of 32 bytes. Keeps a mistaken path from filling memory.
pub const LIST_BYTES_MAX: u64 = 256 * 1024 * 1024;
