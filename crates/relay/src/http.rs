//! An HTTP client whose requests are forwarded one by one, each to the target that it names.
//!
//! hyper reads and writes HTTP on both sides; between them lies what a proxy does to a message (RFC 9110, section 7.6). The way to
//! a target is dialled as for any session, and kept while the client goes on asking for it. CONNECT and a change of
//! protocol end the conversation: what follows are bytes.

mod content;
mod io;
mod onward;

pub(crate) use io::{Io, Moved};

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, MAX_FORWARDS,
    PROXY_AUTHORIZATION, TRANSFER_ENCODING, UPGRADE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use umbra_proto::address::Address;
use umbra_proto::http::{self, Status};
use umbra_proto::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX};
use umbra_proto::request::Command;
use umbra_proto::users::{UserName, Users};

use crate::conn::Conn;
use crate::door::Door;
use crate::drive::{Inbox, write_all};
use crate::failure::{Cause, Failure, Side, Stage, Whereabouts};
use crate::inbound::{ClientSide, see_off};
use crate::limits::{HALF_CLOSED_SECS_MAX, REFUSAL_SECS_MAX};
use crate::net::{Net, Socket};
use crate::origin::Origin;
use crate::path::{Asker, Errand, TargetSide, Who, reach};
use crate::pipe::{Pipe, pipe};
use crate::session::{Session, Way, reset_behind};
use content::{Answer, Content, passing};
use io::{Backlog, Lookout};
use onward::{Onward, Present, Unanswered};

/// A client and its requests.
struct Conversation<'d, N: Net> {
    door: &'d Arc<Door<N>>,
    users: Option<&'d Users>,
    /// Where the client comes from.
    source: IpAddr,
    /// What each connection to a target begins with.
    header: Option<Vec<u8>>,
    /// Sees that the client is gone.
    lookout: Lookout<N::Socket>,
    /// What the client has been answered and has not left yet.
    backlog: Backlog,
    state: Mutex<State<N::Socket>>,
}

struct State<S> {
    /// The connection to the target of the last request, for the next one.
    kept: Option<Onward>,
    /// Who is at the other end of the way that was found last.
    whereabouts: Whereabouts,
    /// Why the conversation ends.
    leaving: Leaving<S>,
    /// The sessions along the ways to targets. Dropped, they end.
    carriers: JoinSet<()>,
}

impl<S> State<S> {
    fn new() -> Self {
        let (whereabouts, carriers) = (Whereabouts::default(), JoinSet::new());
        Self { kept: None, whereabouts, leaving: Leaving::Stays, carriers }
    }
}

enum Leaving<S> {
    Stays,
    /// The client has asked for a way, and it stands.
    Way(TargetSide<S>),
    /// The target has changed the protocol.
    Upgrade(Onward),
}

/// Talks HTTP with a client, beginning with the request that lies untouched in `inbox`, until one of them has enough of it, or
/// the client has asked for a way and got it.
pub(crate) async fn converse<N: Net>(
    door: &Arc<Door<N>>,
    users: Option<&Users>,
    client: N::Socket,
    origin: &Origin,
    inbox: Inbox,
) -> Result<Option<Way<N::Socket>>, Failure> {
    let header = origin.header(door, &client);
    let io = Io::of_client(client, inbox.into_batch());
    let (moved, lookout, backlog) = (io.moved(), io.lookout(), io.backlog());
    let state = Mutex::new(State::new());
    let source = origin.source.ip();
    let conversation = Conversation { door, users, source, header, lookout, backlog, state };
    let service = service_fn(|request| Box::pin(conversation.answer(request)));
    let mut connection = http1::Builder::new()
        .auto_date_header(false)
        .half_close(true)
        .preserve_header_case(true)
        // What is our own has the case that it has everywhere.
        .title_case_headers(true)
        .max_headers(HTTP_HEADERS_MAX)
        .max_buf_size(HTTP_HEAD_BYTES_MAX)
        .serve_connection(io, service);
    let ended = tokio::select! {
        biased;
        ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => ended,
        () = idle(moved, door.inbound.idle) => {
            return Err(Failure::new(Stage::Relay, Side::Inbound, Cause::Deadline));
        }
        error = conversation.lookout.broken() => {
            return Err(Failure::new(Stage::Relay, Side::Inbound, Cause::Io(error)));
        }
    };
    let http1::Parts { io, read_buf, .. } = connection.into_parts();
    let State { kept, whereabouts: _, leaving, mut carriers } = conversation.into_state();
    drop(kept);
    let withheld = io.withheld();
    let Some((client, unread)) = io.into_inner() else { return Ok(None) };
    let inbox = || Inbox::holding(&[&read_buf[..], &unread].concat());
    let outcome = match (ended, leaving) {
        (Ok(()), Leaving::Way(target)) => {
            return Ok(Some(Way { client, inbox: inbox(), target }));
        }
        (Ok(()), Leaving::Upgrade(onward)) => {
            carry_on(door, client, inbox(), onward).await;
            Ok(None)
        }
        (Ok(()), Leaving::Stays) => {
            // An answer of a target that happened to say the same.
            let _gone_already = write_all(&client, withheld.unwrap_or_default()).await;
            see_off(&client, Instant::now() + REFUSAL_SECS_MAX).await;
            Ok(None)
        }
        (Err(error), _) if error.is_parse() => {
            if withheld.is_some() {
                refuse_head(&client, &error).await;
            }
            see_off(&client, Instant::now() + REFUSAL_SECS_MAX).await;
            Err(Failure::handshake(Cause::Http(error)))
        }
        (Err(error), _) => {
            break_off(&client, &error, door.inbound.idle).await;
            Err(Failure::new(Stage::Relay, Side::Inbound, Cause::Http(error)))
        }
    };
    // What was said last to a target leaves in order, while this session still has its place.
    while carriers.join_next().await.is_some() {}
    outcome
}

/// Resets a client, for a message that broke off must not pass for a whole one. Where it was an answer, all that came of it is the client's.
async fn break_off<S: Socket>(client: &S, why: &hyper::Error, patience: Duration) {
    // hyper holds against its user what becomes of a body that it was given, and here that is the target's.
    if why.is_user() {
        reset_behind(client, patience).await;
    } else {
        client.reset();
    }
}

/// Tells a client in our own words that its head is not understood.
async fn refuse_head<S: Socket>(client: &S, why: &hyper::Error) {
    let status = if why.is_parse_too_large() { Status::HeadTooLarge } else { Status::BadRequest };
    let mut answer = Vec::new();
    status.answer(true, &mut answer);
    let _gone_already = write_all(client, &answer).await;
}

/// Carries bytes between two ends that have agreed on another protocol.
async fn carry_on<N: Net>(door: &Door<N>, client: N::Socket, inbox: Inbox, onward: Onward) {
    let Some((pipe, said, _present)) = onward.into_pipe().await else { return client.reset() };
    let mut target = TargetSide::direct(Conn::<N::Socket>::inside(pipe));
    target.inbox = Inbox::holding(&said);
    let session = Session::new(client, ClientSide::plain(), inbox, None, target);
    if let Err(failure) = session.run(door).await {
        door.notices.failure(&failure);
    }
}

/// Ends when nothing has moved for `idle`.
pub(crate) async fn idle(moved: Moved, idle: Duration) {
    let mut deadline = pin!(sleep_until(moved.last() + idle));
    loop {
        deadline.as_mut().await;
        if moved.last() + idle <= Instant::now() {
            return;
        }
        deadline.as_mut().reset(moved.last() + idle);
    }
}

impl<N: Net> Conversation<'_, N> {
    fn into_state(self) -> State<N::Socket> {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State<N::Socket>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what is left of an earlier target before there is another one: a client has one at a time, however fast it asks
    /// for them. The answer before this request has passed in whole, so nothing of use is cut off.
    async fn end_earlier(&self) {
        let mut carriers = {
            let mut state = self.state();
            state.kept = None;
            std::mem::take(&mut state.carriers)
        };
        carriers.shutdown().await;
    }

    /// One request and its answer. Every request shows its own password.
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Content>, Infallible> {
        let is_head = request.method() == Method::HEAD;
        let is_old = request.version() == Version::HTTP_10;
        // Behind content that nobody has taken another request could not be found.
        let may_go_on = request.body().is_end_stream();
        let user = match self.users.map(|users| user_of(users, request.headers())) {
            None => Ok(None),
            Some(Some(user)) => Ok(Some(user)),
            Some(None) => Err(Status::ProxyAuthenticationRequired),
        };
        let outcome = match user {
            Err(status) => Err(status),
            Ok(_) if head_bytes_min(&request) > HTTP_HEAD_BYTES_MAX => Err(Status::HeadTooLarge),
            Ok(user) if request.method() == Method::CONNECT => self.open_way(&request, user).await,
            Ok(user) => self.forward(request, user).await,
        };
        let mut response = outcome.unwrap_or_else(|status| refusal(status, is_head, may_go_on));
        if is_old {
            tell_old(&mut response);
        }
        Ok(response)
    }

    /// CONNECT on a connection that has forwarded requests before.
    async fn open_way(
        &self,
        request: &Request<Incoming>,
        user: Option<&UserName>,
    ) -> Result<Response<Content>, Status> {
        // What follows is the tunnel's: nothing of it may be taken for content.
        if !request.body().is_end_stream() {
            return Err(Status::BadRequest);
        }
        let authority = request.uri().authority().ok_or(Status::BadRequest)?;
        let target = http::connect_target(authority.as_str()).map_err(|_| Status::BadRequest)?;
        self.end_earlier().await;
        let side = self.reach(&target, user).await?;
        self.state().leaving = Leaving::Way(side);
        Ok(Response::new(Content::Nothing))
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        user: Option<&UserName>,
    ) -> Result<Response<Content>, Status> {
        let target = http::forward_target(&request.uri().to_string()).map_err(|_| Status::BadRequest)?;
        if let Goes::NoFurther = count_forward(&mut request)? {
            return Ok(last_answer(request.method(), request.body().is_end_stream()));
        }
        let asks_upgrade = prepare(&mut request)?;
        // Content may still be on its way to a slow target, where nothing of ours sees it move.
        let patience =
            if request.body().is_end_stream() { HALF_CLOSED_SECS_MAX } else { self.door.inbound.idle };
        let (request, held_back) = passing(request);
        let sent = tokio::select! {
            biased;
            sent = self.send(&target, user, request) => sent,
            // Most likely nobody is there any more; whoever is reads why.
            () = self.lookout.ended_for(patience) => {
                self.door.notices.failure(&self.at_target(Cause::Deadline));
                Err(Status::GatewayTimeout)
            }
        };
        // From here on the client is not asked for more than it has been asked for: what it has kept back, nobody wants.
        let kept_back = held_back.is_some_and(|held_back| held_back.withdraw());
        let (onward, mut response) = sent?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // RFC 9110, section 7.8: whoever was asked to say 100 has to say that first.
            if !asks_upgrade || kept_back {
                return Err(Status::BadGateway);
            }
            self.state().leaving = Leaving::Upgrade(onward);
            return Ok(response.map(|_| Content::Nothing));
        }
        if !is_passable(response.headers()) {
            return Err(Status::BadGateway);
        }
        self.state().kept = Some(onward);
        strip(response.headers_mut());
        if kept_back {
            // Whether the content comes all the same, the client alone knows, and then another request could not be found behind it.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // RFC 9110, section 2.5: a proxy's version is its own. hyper tells an older client so in that one's words.
        *response.version_mut() = Version::HTTP_11;
        Ok(response.map(|incoming| Content::Answer(Answer::new(incoming, self.backlog.clone()))))
    }

    /// Sends a request over the connection kept for its target, or a fresh one.
    async fn send(
        &self,
        target: &Address,
        user: Option<&UserName>,
        request: Request<Content>,
    ) -> Result<(Onward, Response<Incoming>), Status> {
        let kept = self.state().kept.take().filter(|kept| kept.leads_to(target, user));
        let request = match kept {
            None => request,
            Some(mut onward) => match onward.send(request).await {
                Ok(response) => return Ok((onward, response)),
                // The target may have ended the connection at any time between two requests.
                Err(Unanswered::MayBeSentAgain(request)) => *request,
                Err(Unanswered::Malformed) => return Err(Status::BadRequest),
                Err(Unanswered::Lost) => return Err(self.lost(Some(&onward))),
            },
        };
        self.end_earlier().await;
        let side = self.reach(target, user).await?;
        self.state().whereabouts = side.whereabouts.clone();
        let header = self.header.clone();
        let (pipe, gone) = self.carry(header, side);
        let mut onward = Onward::open(target, user, pipe, gone).await.map_err(|_| self.lost(None))?;
        match onward.send(request).await {
            Ok(response) => Ok((onward, response)),
            Err(Unanswered::Malformed) => Err(Status::BadRequest),
            Err(Unanswered::MayBeSentAgain(_) | Unanswered::Lost) => Err(self.lost(Some(&onward))),
        }
    }

    async fn reach(
        &self,
        target: &Address,
        user: Option<&UserName>,
    ) -> Result<TargetSide<N::Socket>, Status> {
        let (command, forbidden) = (Command::Connect, &*self.door.inbound.forbidden);
        let errand = Errand::new(command, target, forbidden);
        let who = Who::Client(Asker { source: self.source, user: user.map(UserName::as_str) });
        reach(self.door, who, errand).await.map_err(|failure| self.failed(&failure))
    }

    /// Lets a session carry what is said into a pipe, and what comes back, along the way to a target. It ends soon after its
    /// speaker is gone.
    fn carry(&self, header: Option<Vec<u8>>, side: TargetSide<N::Socket>) -> (Pipe, Present) {
        let (ours, theirs) = pipe();
        let (present, gone, told) = Present::new();
        let epitaph = theirs.epitaph();
        let session = Session::new(theirs, ClientSide::plain(), Inbox::default(), header, side);
        let door = Arc::clone(self.door);
        self.state().carriers.spawn(async move {
            tokio::select! {
                ended = session.run(&door) => {
                    if let Err(failure) = ended {
                        told.note();
                        door.notices.failure(&failure);
                        // An answer that has come whole is good, whatever came of its target after it.
                        epitaph.write(&failure);
                    }
                }
                // A target that keeps its end open is not waited for.
                () = async { drop(gone.await); sleep(REFUSAL_SECS_MAX).await } => {}
            }
        });
        (ours, present)
    }

    fn failed(&self, failure: &Failure) -> Status {
        self.door.notices.failure(failure);
        failure.refusal().http()
    }

    /// What went wrong at the other end of the way that was found last.
    fn at_target(&self, cause: Cause) -> Failure {
        self.state().whereabouts.of(Failure::outbound(Stage::Relay, cause))
    }

    /// An answer that never came. Where the session that carried the request has failed, that one has told why.
    fn lost(&self, onward: Option<&Onward>) -> Status {
        let failure = self.at_target(Cause::Truncated);
        if onward.is_some_and(Onward::is_told) {
            return failure.refusal().http();
        }
        self.failed(&failure)
    }
}

/// How long the request's head was, where as little as possible stood between its parts. hyper's own bound is that of its buffer, which
/// may be larger than it was asked to be.
fn head_bytes_min(request: &Request<Incoming>) -> usize {
    let uri = request.uri();
    let scheme = uri.scheme_str().map_or(0, |scheme| scheme.len() + "://".len());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let line = request.method().as_str().len() + scheme + authority + path + "  HTTP/1.1\r\n".len();
    let header =
        |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + ":\r\n".len();
    line + request.headers().iter().map(header).sum::<usize>() + "\r\n".len()
}

/// Whose login the request has, if it is one and somebody's.
fn user_of<'u>(users: &'u Users, headers: &HeaderMap) -> Option<&'u UserName> {
    let mut lines = headers.get_all(PROXY_AUTHORIZATION).iter();
    let value = match (lines.next(), lines.next()) {
        (Some(value), None) => value.as_bytes(),
        (None, _) | (Some(_), Some(_)) => b"",
    };
    http::check_basic(users, value)
}

/// Makes a request for a proxy one for its target: the target's own form, its Host, and nothing that was for us alone. Says
/// whether it asks to change the protocol.
fn prepare(request: &mut Request<Incoming>) -> Result<bool, Status> {
    let authority = request.uri().authority().ok_or(Status::BadRequest)?;
    // RFC 9112, section 3.2.2: a proxy MUST ignore the Host that came and put the target's in its place.
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Status::BadRequest)?;
    *request.uri_mut() = own_form(request.uri()).ok_or(Status::BadRequest)?;
    if !is_passable(request.headers()) {
        return Err(Status::NotImplemented);
    }
    let is_old = request.version() == Version::HTTP_10;
    // RFC 9110, section 7.8: an Upgrade of such a client MUST be ignored.
    let upgrade = if is_old { None } else { asked_upgrade(request.headers()) };
    let is_unmeasured = request.body().size_hint().exact().is_none();
    let headers = request.headers_mut();
    strip(headers);
    if is_old {
        // RFC 9110, section 10.1.1: an expectation of such a client MUST be ignored, and the request goes on as one of ours.
        headers.remove(EXPECT);
    }
    headers.insert(HOST, host);
    if is_unmeasured {
        // Not told so, hyper would take a GET or HEAD for one without content, and leave out what has come.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let asks_upgrade = upgrade.is_some();
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, protocol);
    }
    *request.version_mut() = Version::HTTP_11;
    Ok(asks_upgrade)
}

/// How far a request is to go.
enum Goes {
    /// As far as its target.
    Onward,
    /// We are the last whom it is for.
    NoFurther,
}

/// Takes one from what is left to a request of its `Max-Forwards` (RFC 9110, section 7.6.2), which counts for two methods.
fn count_forward(request: &mut Request<Incoming>) -> Result<Goes, Status> {
    if ![Method::OPTIONS, Method::TRACE].contains(request.method()) {
        return Ok(Goes::Onward);
    }
    let mut lines = request.headers().get_all(MAX_FORWARDS).iter();
    let value = match (lines.next(), lines.next()) {
        (None, _) => return Ok(Goes::Onward),
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Err(Status::BadRequest),
    };
    match http::forwards_left(value.as_bytes()).map_err(|_| Status::BadRequest)? {
        Some(left) => {
            request.headers_mut().insert(MAX_FORWARDS, HeaderValue::from(left));
            Ok(Goes::Onward)
        }
        None => Ok(Goes::NoFurther),
    }
}

/// The answer to a request that goes no further than here. TRACE is not followed at its last: what it came with may be secret, and an
/// answer that repeats it would show it to whatever script has asked.
fn last_answer(method: &Method, is_whole: bool) -> Response<Content> {
    let mut response = Response::new(Content::Nothing);
    if *method == Method::TRACE {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    }
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(ANSWERED_HERE));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    if !is_whole {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A target's own form of `uri` (RFC 9112, section 3.2.1): a path, at least the shortest, and a query.
///
/// OPTIONS about a whole server (section 3.2.4) becomes one about `/`: the library gives an empty path as the shortest, and a
/// browser that asks about `/` itself, as it does before requests to other origins, is the one who has to be understood.
fn own_form(uri: &Uri) -> Option<Uri> {
    match uri.path_and_query().map_or("/", |path| path.as_str()) {
        query if query.starts_with('?') => format!("/{query}").parse().ok(),
        path => path.parse().ok(),
    }
}

/// Whether a message's content can be passed on: the coding for the transfer is ours to undo and to do again, and chunks are the
/// only one that is known here (RFC 9112, section 6.1).
fn is_passable(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// The protocols that a request wants to change to, if its Connection line says that it does. HTTP/2 is not among them: its settings
/// are for one hop alone (RFC 7540, section 3.2.1), and a target that changed to it without them would break the conversation.
fn asked_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    if !listed(headers, &CONNECTION).any(|name| name.eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    let protocols: Vec<_> =
        listed(headers, &UPGRADE).filter(|protocol| !protocol.eq_ignore_ascii_case("h2c")).collect();
    HeaderValue::from_str(&protocols.join(", ")).ok().filter(|value| !value.is_empty())
}

/// What all lines of a name list together.
fn listed<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(http::list_members)
}

/// Takes out what is for one hop alone (RFC 9110, section 7.6.1), and a length that is not the content's.
fn strip(headers: &mut HeaderMap) {
    // RFC 9112, section 6.3: chunks say better where they end, and whoever sends both may mean to deceive.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .chain(headers.get_all("proxy-connection"))
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    let known: Vec<HeaderName> =
        headers.keys().filter(|name| http::is_hop_by_hop(name.as_str())).cloned().collect();
    for name in listed.into_iter().chain(known) {
        headers.remove(name);
    }
}

/// Tells a client of HTTP/1.0 that its connection ends with an answer of which nothing else can tell it where it ends, as chunks tell
/// others.
fn tell_old(response: &mut Response<Content>) {
    if response.body().size_hint().exact().is_none() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if response.headers().contains_key(CONNECTION) {
        // To an answer of a later version hyper adds that the connection stays, whatever stands there.
        *response.version_mut() = Version::HTTP_10;
    }
}

/// A refusal in a conversation, which goes on if the client `may_go_on` and the status lets it.
fn refusal(status: Status, is_head: bool, may_go_on: bool) -> Response<Content> {
    let mut response = Response::new(if is_head { Content::Nothing } else { Content::Text(status.text()) });
    *response.status_mut() = StatusCode::from_u16(status.code()).unwrap_or(StatusCode::BAD_GATEWAY);
    for (name, value) in status.headers(may_go_on) {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(&value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// The method that we answer ourselves, where a request is for nobody behind us.
const ANSWERED_HERE: &str = "OPTIONS";
