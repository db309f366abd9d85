//! The table of routes: method, path, scope, handler. The router has no other routes.
//!
//! Owns: [`table`], from which the router and the test of the scopes are built, and the OPTIONS and 405 answers that
//! follow from it. Does not know: what handlers do. A route cannot be added without a scope.

use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;

use axum::extract::State;
use axum::handler::Handler;
use axum::http::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE, ALLOW, HeaderName,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{self, MethodFilter, MethodRouter};

use super::guard::Checks;
use super::{
    App, chat, events, guard, hls, inputs, invitations, library, moderation, outputs, overlays, participants, player,
    rooms, service, sessions, views,
};
use crate::http::problem::Problem;
use crate::room::document::Role;

/// The request headers that pages of other origins may send. `ETag` is among them because some WHIP clients send it.
const ALLOWED_HEADERS: &str = "Authorization, Content-Type, ETag, If-Match, If-None-Match, If-Range, Link, Range";
/// The header that lists the content types of a POST (RFC 9725 section 4.2).
pub(super) const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// The permission that a route requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// None.
    Public,
    /// The secret in the path, which was given to one client and cannot be guessed.
    Secret,
    /// At least this role in the room of the path.
    Room(Role),
    /// None while the room has a public HLS broadcast, else a viewer of the room.
    Hls,
    /// At least this role in any room; the handler checks the room that is concerned.
    AnyRoom(Role),
    /// At least this role in all rooms.
    Server(Role),
}

/// One route.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) scope: Scope,
    handler: MethodRouter<App>,
}

fn route<H, T>(method: Method, path: &'static str, scope: Scope, handler: H) -> Route
where
    H: Handler<T, App>,
    T: 'static,
{
    let filter = MethodFilter::try_from(method.clone()).expect("the table contains only standard methods");
    Route { method, path, scope, handler: routing::on(filter, handler) }
}

const ROOM: &str = "/v1/rooms/{room}";
const PARTICIPANTS: &str = "/v1/rooms/{room}/participants";
const PARTICIPANT: &str = "/v1/rooms/{room}/participants/{id}";
const EVENTS: &str = "/v1/rooms/{room}/events";
const VIEW: &str = "/v1/rooms/{room}/views/{view}";
const RECORDINGS: &str = "/v1/rooms/{room}/recordings";
const RECORDING: &str = "/v1/rooms/{room}/recordings/{id}";
const BROADCASTS: &str = "/v1/rooms/{room}/broadcasts";
const BROADCAST: &str = "/v1/rooms/{room}/broadcasts/{id}";
const FILE: &str = "/v1/recordings/{file}";
const INPUTS: &str = "/v1/rooms/{room}/inputs";
const INPUT: &str = "/v1/rooms/{room}/inputs/{id}";
const OVERLAYS: &str = "/v1/rooms/{room}/overlays";
const OVERLAY: &str = "/v1/rooms/{room}/overlays/{id}";
const CHAT: &str = "/v1/rooms/{room}/chat";
const IMAGE: &str = "/v1/rooms/{room}/images/{name}";
const SESSION: &str = "/v1/sessions/{secret}";
const PLAYER: &str = "/v1/sessions/{secret}/events";
const PLAYER_STREAM: &str = "/v1/sessions/{secret}/events/{stream}";

/// All routes.
pub(super) fn table() -> Vec<Route> {
    use Role::{Moderator, Operator, Participant, Viewer};
    use Scope::{AnyRoom, Hls, Public, Room, Secret, Server};
    vec![
        route(Method::POST, PARTICIPANTS, Room(Viewer), sessions::join),
        route(Method::POST, "/whip/{room}", Room(Participant), sessions::whip),
        route(Method::GET, "/whip/{room}", Public, sessions::endpoint),
        route(Method::POST, "/whep/{room}", Room(Viewer), sessions::whep),
        route(Method::GET, "/whep/{room}", Public, sessions::endpoint),
        route(Method::GET, SESSION, Secret, sessions::get),
        route(Method::PATCH, SESSION, Secret, sessions::patch),
        route(Method::DELETE, SESSION, Secret, sessions::delete),
        route(Method::POST, PLAYER, Secret, player::open),
        route(Method::GET, PLAYER_STREAM, Secret, player::listen),
        route(Method::DELETE, PLAYER_STREAM, Secret, player::close),
        route(Method::GET, "/v1/rooms", Server(Operator), rooms::list),
        route(Method::POST, "/v1/rooms", Server(Operator), rooms::create),
        route(Method::GET, ROOM, Room(Viewer), rooms::get),
        route(Method::PATCH, ROOM, Room(Moderator), rooms::patch),
        route(Method::DELETE, ROOM, Room(Moderator), rooms::delete),
        route(Method::GET, PARTICIPANTS, Room(Viewer), participants::list),
        route(Method::GET, PARTICIPANT, Room(Viewer), participants::get),
        // The two handlers below require a moderator or the participant itself.
        route(Method::PATCH, PARTICIPANT, Room(Viewer), participants::patch),
        route(Method::DELETE, PARTICIPANT, Room(Viewer), moderation::remove),
        route(Method::POST, "/v1/rooms/{room}/participants/admit", Room(Moderator), moderation::admit_all),
        route(Method::POST, "/v1/rooms/{room}/participants/mute", Room(Moderator), moderation::mute_others),
        route(Method::POST, "/v1/rooms/{room}/participants/{id}/admit", Room(Moderator), moderation::admit),
        route(Method::POST, "/v1/rooms/{room}/participants/{id}/ask_unmute", Room(Moderator), moderation::ask_unmute),
        route(Method::GET, VIEW, Room(Viewer), views::get),
        route(Method::PUT, VIEW, Room(Moderator), views::put),
        route(Method::DELETE, VIEW, Room(Moderator), views::delete),
        route(Method::GET, RECORDINGS, Room(Viewer), outputs::list_recordings),
        route(Method::POST, RECORDINGS, Room(Moderator), outputs::start_recording),
        route(Method::GET, RECORDING, Room(Viewer), outputs::get_recording),
        route(Method::DELETE, RECORDING, Room(Moderator), outputs::stop_recording),
        route(Method::GET, BROADCASTS, Room(Viewer), outputs::list_broadcasts),
        route(Method::POST, BROADCASTS, Room(Moderator), outputs::start_broadcast),
        route(Method::GET, BROADCAST, Room(Viewer), outputs::get_broadcast),
        route(Method::DELETE, BROADCAST, Room(Moderator), outputs::stop_broadcast),
        route(Method::GET, INPUTS, Room(Viewer), inputs::list),
        route(Method::POST, INPUTS, Room(Moderator), inputs::start),
        route(Method::GET, INPUT, Room(Viewer), inputs::get),
        route(Method::DELETE, INPUT, Room(Moderator), inputs::stop),
        route(Method::GET, OVERLAYS, Room(Viewer), overlays::list),
        route(Method::POST, OVERLAYS, Room(Moderator), overlays::add),
        route(Method::GET, OVERLAY, Room(Viewer), overlays::get),
        route(Method::PATCH, OVERLAY, Room(Moderator), overlays::change),
        route(Method::DELETE, OVERLAY, Room(Moderator), overlays::remove),
        route(Method::GET, "/v1/rooms/{room}/images", Room(Viewer), overlays::list_images),
        route(Method::PUT, IMAGE, Room(Moderator), overlays::put_image),
        route(Method::GET, IMAGE, Room(Viewer), overlays::get_image),
        route(Method::DELETE, IMAGE, Room(Moderator), overlays::remove_image),
        // The handler requires a moderator or the speaker itself.
        route(Method::POST, "/v1/rooms/{room}/captions", Room(Viewer), overlays::caption),
        route(Method::GET, CHAT, Room(Viewer), chat::list),
        // The handler requires a participant, which a viewer may have become.
        route(Method::POST, CHAT, Room(Viewer), chat::post),
        route(Method::POST, "/v1/rooms/{room}/invitations", Room(Moderator), invitations::create),
        route(Method::GET, EVENTS, Room(Viewer), events::open),
        route(Method::GET, "/hls/{room}/index.m3u8", Hls, hls::master),
        route(Method::GET, "/hls/{room}/{rendition}/{file}", Hls, hls::file),
        route(Method::GET, "/live/{room}", Public, service::live),
        route(Method::GET, "/v1/recordings", AnyRoom(Moderator), library::list),
        route(Method::GET, FILE, AnyRoom(Moderator), library::download),
        route(Method::DELETE, FILE, AnyRoom(Moderator), library::delete),
        route(Method::GET, "/metrics", Server(Operator), service::metrics),
        route(Method::GET, "/healthz", Public, service::healthz),
        route(Method::GET, "/readyz", Public, service::readyz),
        route(Method::GET, "/openapi.json", Public, service::openapi),
        route(Method::GET, "/docs/api.md", Public, service::docs),
        route(Method::GET, "/docs", Public, service::explorer),
        route(Method::GET, "/", Public, service::index),
    ]
}

/// Whether paths of the API begin with this segment, so that `/segment` is not the page of a room.
pub(super) fn is_reserved(segment: &str) -> bool {
    static SEGMENTS: LazyLock<HashSet<&str>> =
        LazyLock::new(|| table().iter().filter_map(|route| route.path.split('/').nth(1)).collect());
    SEGMENTS.contains(segment)
}

/// Handles every path that is not a route. A trailing slash is redirected with 307, which keeps the method (RFC 9725
/// section 4.5). Other paths are files of the web page, pages of rooms, or 404.
pub(super) async fn fallback(State(app): State<App>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().trim_end_matches('/');
    // Only below known paths: a redirect to `//host` would lead to another server.
    let known = ["/whip/", "/whep/", "/v1/"].iter().any(|prefix| path.starts_with(prefix));
    if known && path.len() < uri.path().len() {
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        return Redirect::temporary(&format!("{path}{query}")).into_response();
    }
    app.policy().web.asset(&method, &uri, &headers, is_reserved)
}

/// What the guard of a route checks. Joins have limits of their own. Who waits in the lobby may join, and open the
/// events, which it gets of itself only.
fn checks(method: &Method, path: &str, scope: Scope) -> Checks {
    let joins = *method == Method::POST && [PARTICIPANTS, "/whip/{room}", "/whep/{room}"].contains(&path);
    let changes = *method != Method::GET && !joins && matches!(scope, Scope::Room(_));
    Checks { changes, in_lobby: joins || path == EVENTS }
}

/// The table in axum's form: one method router per path, each handler behind its guard, with OPTIONS and 405.
pub(super) fn by_path(app: &App) -> BTreeMap<&'static str, MethodRouter<App>> {
    let mut paths: BTreeMap<&'static str, (Vec<Method>, MethodRouter<App>)> = BTreeMap::new();
    for Route { method, path, scope, handler } in table() {
        let checks = checks(&method, path, scope);
        let guarded = handler.layer(middleware::from_fn_with_state((app.clone(), scope, checks), guard::check));
        let (methods, all) = paths.entry(path).or_insert_with(|| (Vec::new(), MethodRouter::new()));
        methods.push(method);
        *all = std::mem::take(all).merge(guarded);
    }
    paths.into_iter().map(|(path, (methods, handlers))| (path, with_options(path, &methods, handlers))).collect()
}

fn with_options(path: &'static str, methods: &[Method], handlers: MethodRouter<App>) -> MethodRouter<App> {
    let mut names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    if methods.contains(&Method::GET) {
        names.push("HEAD");
    }
    names.push("OPTIONS");
    let allow = names.join(", ");
    let options = options(path, &allow);
    handlers
        .options(move || async move { (StatusCode::OK, options) })
        .fallback(move || async move { Problem::method_not_allowed(&allow).into_response() })
}

/// The answer to OPTIONS, including CORS preflights. It requires no token, because a preflight cannot send one.
fn options(path: &str, allow: &str) -> HeaderMap {
    let allow = HeaderValue::from_str(allow).expect("method names are header text");
    let mut headers = HeaderMap::new();
    headers.insert(ALLOW, allow.clone());
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, allow);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    if path == PLAYER {
        headers.insert(ACCEPT_POST, HeaderValue::from_static("application/json"));
    } else if path == SESSION {
        headers.insert(ACCEPT_PATCH, HeaderValue::from_static(sessions::ACCEPTED_PATCHES));
    } else if [PARTICIPANTS, "/whip/{room}", "/whep/{room}"].contains(&path) {
        headers.insert(ACCEPT_POST, HeaderValue::from_static(sessions::SDP));
        headers.insert(ACCEPT, HeaderValue::from_static(sessions::SDP));
    }
    headers
}
