//! Recordings on disk: list, download, delete. An operator may access all of them, a moderator those of its room.
//!
//! Owns: the permissions for recordings, and the headers of a download. Does not know: the disk
//! ([`Library`](crate::recordings)). In: requests; out: lists and files.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    LAST_MODIFIED, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};
use tokio_util::io::ReaderStream;

use super::extract::{self, InPath};
use super::ranges::{Part, Validators, choose};
use super::{App, Caller};
use crate::http::problem::Problem;
use crate::id::{RoomName, percent_encoded};
use crate::recordings::{Content, FileName, LibraryError, Opened, RecordingFile};
use crate::room::document::Role;

/// Bytes of a file that are read at a time.
const CHUNK: usize = 128 * 1024;

/// The query of a list.
#[derive(Debug, Default, Deserialize)]
struct ListQuery {
    room: Option<String>,
}

/// The query of a download.
#[derive(Debug, Default, Deserialize)]
struct DownloadQuery {
    /// `1`: the browser saves the file instead of showing it.
    #[serde(default)]
    download: Option<u8>,
}

/// `GET /v1/recordings`.
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    parts: Parts,
) -> Result<Json<Vec<RecordingFile>>, Problem> {
    let ListQuery { room } = extract::query(&parts.uri)?;
    let room = room.map(|room| room.parse::<RoomName>()).transpose();
    let room = room.map_err(|error| Problem::bad_room_name(StatusCode::BAD_REQUEST, &error))?;
    // A token for one room lists the recordings of that room.
    let room = room.or_else(|| caller.identity.room.clone());
    caller.identity.may(Role::Moderator, room.as_ref())?;
    Ok(Json(app.library().list(room).await?))
}

/// `GET /v1/recordings/{file}`, and HEAD.
pub(super) async fn download(
    State(app): State<App>,
    InPath(name): InPath<FileName>,
    caller: Caller,
    parts: Parts,
) -> Result<Response, Problem> {
    let DownloadQuery { download } = extract::query(&parts.uri)?;
    check_permission(&app, &caller, &name).await?;
    if name.content() == Content::Transcript {
        return transcript(&app, &name, download == Some(1)).await;
    }
    let Opened { file, local, running } = app.library().open_file(&name).await?;
    // A growing file has no stable state for validators.
    let validators = (!running).then(|| Validators::new(local.bytes, local.modified));
    let part = choose(&parts.headers, local.bytes, validators.as_ref());
    let (status, range) = match part {
        Part::NotModified => (StatusCode::NOT_MODIFIED, None),
        Part::Whole => (StatusCode::OK, (local.bytes > 0).then(|| 0..=local.bytes - 1)),
        Part::Range(range) => (StatusCode::PARTIAL_CONTENT, Some(range)),
        Part::Unsatisfiable => {
            let problem =
                Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, format!("the file has {} bytes", local.bytes));
            return Err(problem.with(CONTENT_RANGE, text(format!("bytes */{}", local.bytes))));
        }
    };
    let length = range.as_ref().map_or(0, |range| range.end() - range.start() + 1);
    let body = match &range {
        Some(range) if parts.method != Method::HEAD => {
            let mut file = tokio::fs::File::from_std(file);
            file.seek(SeekFrom::Start(*range.start())).await.map_err(LibraryError::Disk)?;
            Body::from_stream(ReaderStream::with_capacity(file.take(length), CHUNK))
        }
        _ => Body::empty(),
    };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(Validators { etag, .. }) = &validators {
        headers.insert(ETAG, text(etag.clone()));
    }
    headers.extend(validators.map(|validators| (LAST_MODIFIED, text(validators.last_modified()))));
    // A growing file changes; a finished one may be cached by browsers, but not by shared caches.
    let cache = if running { "no-store" } else { "private, no-cache" };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    if status == StatusCode::NOT_MODIFIED {
        return Ok(response);
    }
    if let (StatusCode::PARTIAL_CONTENT, Some(range)) = (status, range) {
        headers.insert(CONTENT_RANGE, text(format!("bytes {}-{}/{}", range.start(), range.end(), local.bytes)));
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(name.content().media_type()));
    let disposition = if download == Some(1) { "attachment" } else { "inline" };
    headers.insert(CONTENT_DISPOSITION, text(content_disposition(disposition, name.as_str())));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // The URL may contain a token.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}

/// The transcript of a recording. It is short and made anew, so there are no ranges.
async fn transcript(app: &App, name: &FileName, is_saved: bool) -> Result<Response, Problem> {
    let mut response = app.library().transcript(name).await?.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(name.content().media_type()));
    let disposition = if is_saved { "attachment" } else { "inline" };
    headers.insert(CONTENT_DISPOSITION, text(content_disposition(disposition, name.as_str())));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}

/// `DELETE /v1/recordings/{file}`: deletes the file and its JSON.
pub(super) async fn delete(
    State(app): State<App>,
    InPath(name): InPath<FileName>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    check_permission(&app, &caller, &name).await?;
    app.library().delete(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Requires a moderator of the recorded room. A file without a known room requires an operator.
async fn check_permission(app: &App, caller: &Caller, name: &FileName) -> Result<(), Problem> {
    let room = app.library().room_of(name).await?;
    let needed = if room.is_some() { Role::Moderator } else { Role::Operator };
    Ok(caller.identity.may(needed, room.as_ref())?)
}

/// `Content-Disposition` with a file name; one outside ASCII also in the form of RFC 8187.
fn content_disposition(disposition: &str, name: &str) -> String {
    if name.is_ascii() {
        return format!("{disposition}; filename=\"{name}\"");
    }
    let ascii: String = name.chars().map(|c| if c.is_ascii() { c } else { '_' }).collect();
    let encoded = percent_encoded(name);
    format!("{disposition}; filename=\"{ascii}\"; filename*=UTF-8''{encoded}")
}

fn text(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("names, dates and numbers are header text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_outside_ascii_are_sent_in_both_forms() {
        let value = |name| content_disposition("attachment", name);
        assert_eq!(value("daily-o1.mp4"), "attachment; filename=\"daily-o1.mp4\"");
        let both = "attachment; filename=\"K_che-o1.mp4\"; filename*=UTF-8''K%C3%BCche-o1%2Emp4";
        assert_eq!(value("Küche-o1.mp4"), both);
    }
}
