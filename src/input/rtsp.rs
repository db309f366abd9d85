//! Sources on RTSP servers and cameras.
//!
//! Owns: the connection, which also carries RTP (interleaved), so that no address in a server's SDP is connected to.
//! Does not know: RTSP and RTP, which the crate `retina` implements. In: a socket. Out: an [`Intake`].

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use retina::client::{
    Credentials, Demuxed, InitialTimestampPolicy, PlayOptions, Session, SessionOptions, SetupOptions, Stream,
    TcpTransportOptions, Transport,
};
use retina::codec::{CodecItem, FrameFormat};
use tokio::runtime::Runtime;
use tokio::task::coop::poll_proceed;
use tokio::time::timeout;

use super::open::{OpenError, Task};
use super::skipped::Skipped;
use super::timeline::Timeline;
use crate::codec::intake::{Feed, FeedFormat, Feeder, Intake};
use crate::destination::{Guard, Rtsp};
use crate::dial;
use crate::media::Kind;
use crate::room::document::SkipReason;
use crate::time::now;

/// Timeout until the server starts to play.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes by which the memory of this process may grow until the server plays: the crate has no limit for the
/// header and the body of a message.
const START_MEMORY_MAX: u64 = 64 << 20;
/// Most reads of the connection between two measurements of the memory. tokio allows 128 (`tokio::task::coop`), and each
/// takes as much as the buffer of the socket holds.
const READS_MAX: u32 = 4;
/// Operations of a task of tokio before it must yield.
const COOP_BUDGET: u32 = 128;
/// Errors in succession, without media between them, after which the session is lost.
const ERRORS_MAX: u32 = 100;

/// Connects to a server and starts to play.
pub(super) fn open(
    rtsp: &Rtsp,
    guard: &Guard,
    network: &Runtime,
    skipped: Arc<Skipped>,
    wake: impl Fn() + Send + Sync + 'static,
) -> Result<(Intake, Task), OpenError> {
    let (intake, feeder) = Intake::fed(wake).map_err(OpenError::transient)?;
    let (session, formats) = network.block_on(async {
        let begun = timeout(START_TIMEOUT, within_memory(START_MEMORY_MAX, begin(rtsp, guard))).await;
        let begun = begun.map_err(|_| OpenError::transient("the server did not respond in time"))?;
        begun.unwrap_or_else(|| Err(OpenError::transient("the server sent too long a message")))
    })?;
    let task = network.spawn(async move {
        if let Err(reason) = play(session, formats, &feeder, &skipped).await {
            feeder.fail(reason);
        }
    });
    Ok((intake, Task(task)))
}

/// The result of a future; None if the memory of this process grows by more than so many bytes meanwhile.
async fn within_memory<T>(most: u64, future: impl Future<Output = T>) -> Option<T> {
    let before = resident();
    let mut future = pin!(future);
    poll_fn(|context| {
        if resident() > before.saturating_add(most) {
            return Poll::Ready(None);
        }
        for _ in READS_MAX..COOP_BUDGET {
            let Poll::Ready(used) = poll_proceed(context) else { break };
            used.made_progress();
        }
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// The resident memory of this process in bytes (statm of proc(5)); 0 if it is not known.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * rustix::param::page_size() as u64
}

/// The format of each stream of a session; None for streams that are not used.
type Formats = Vec<Option<FeedFormat>>;

async fn begin(rtsp: &Rtsp, guard: &Guard) -> Result<(Demuxed, Formats), OpenError> {
    let address = dial::resolve(&rtsp.endpoint, guard).await.map_err(|error| OpenError::dial(&error))?;
    let url = rtsp.url_at(address.ip()).expose().parse();
    let url = url.map_err(|_| OpenError::permanent("the path of the URL is not valid in RTSP"))?;
    let login = rtsp.login.as_ref().map(|(name, password)| Credentials {
        username: name.expose().to_owned(),
        password: password.expose().to_owned(),
    });
    let options =
        SessionOptions::default().creds(login).user_agent(concat!("commingle/", env!("CARGO_PKG_VERSION")).to_owned());
    let mut session = Session::describe(url, options).await.map_err(|error| describe(&error))?;
    let mut formats: Formats = session.streams().iter().map(format).collect();
    keep_the_first_of_each(&mut formats);
    if formats.iter().all(Option::is_none) {
        return Err(OpenError::transient("the server offers no supported codec: H.264, H.265, AAC or G.711"));
    }
    for (i, _) in formats.iter().enumerate().filter(|(_, format)| format.is_some()) {
        let setup = SetupOptions::default()
            .transport(Transport::Tcp(TcpTransportOptions::default()))
            .frame_format(FrameFormat::SIMPLE);
        session.setup(i, setup).await.map_err(|error| describe(&error))?;
    }
    // Without RTP-Info for synchronization the streams are assumed to start together. Some servers send `rtptime=0`
    // there for any timestamps; the timeline then aligns the streams by their arrival.
    let options = PlayOptions::default().initial_timestamp(InitialTimestampPolicy::Permissive);
    let session = session.play(options).await.map_err(|error| describe(&error))?;
    Ok((session.demuxed().map_err(|error| describe(&error))?, formats))
}

fn format(stream: &Stream) -> Option<FeedFormat> {
    match stream.encoding_name() {
        "h264" => Some(FeedFormat::H264),
        "h265" => Some(FeedFormat::H265),
        "mpeg4-generic" => Some(FeedFormat::Adts),
        "pcmu" => Some(FeedFormat::G711 { a_law: false }),
        "pcma" => Some(FeedFormat::G711 { a_law: true }),
        _ => None,
    }
}

fn is_picture(format: &FeedFormat) -> bool {
    matches!(format, FeedFormat::H264 | FeedFormat::H265)
}

/// Keeps the first video and the first audio stream.
fn keep_the_first_of_each(formats: &mut Formats) {
    for wanted in [true, false] {
        let fits = |format: &&mut Option<FeedFormat>| format.as_ref().is_some_and(|f| is_picture(f) == wanted);
        formats.iter_mut().filter(fits).skip(1).for_each(|format| *format = None);
    }
}

/// Feeds the server's media until the session ends.
async fn play(mut session: Demuxed, formats: Formats, feeder: &Feeder, skipped: &Skipped) -> Result<(), String> {
    let mut feeds: Vec<Option<Feed>> = formats.iter().map(|_| None).collect();
    let mut timeline = Timeline::new(true);
    // Errors since the last media.
    let (mut errors, mut last_error) = (0, None);
    while let Some(item) = session.next().await {
        if feeder.is_over() {
            break;
        }
        let item = match item {
            Ok(item) => item,
            // One malformed packet costs its frame; the session goes on. After an error of the connection it ends.
            Err(error) if errors < ERRORS_MAX => {
                errors += 1;
                tracing::debug!(%error, "RTSP packet skipped");
                skipped.add(Kind::Video, SkipReason::Malformed, "an RTP packet");
                last_error = Some(error);
                continue;
            }
            Err(error) => return Err(describe(&error).reason),
        };
        let (stream, time, data) = match item {
            // Frames before the first keyframe cannot be decoded.
            CodecItem::VideoFrame(frame) if feeds[frame.stream_id()].is_some() || frame.is_random_access_point() => {
                (frame.stream_id(), frame.timestamp(), Bytes::from(frame.into_data()))
            }
            CodecItem::AudioFrame(frame) => {
                (frame.stream_id(), frame.timestamp(), Bytes::copy_from_slice(frame.data()))
            }
            _ => continue,
        };
        (errors, last_error) = (0, None);
        let Some(format) = &formats[stream] else { continue };
        let kind = if is_picture(format) { Kind::Video } else { Kind::Audio };
        if data.is_empty() {
            skipped.add(kind, SkipReason::Empty, "a frame");
            continue;
        }
        let feed = match &mut feeds[stream] {
            Some(feed) => feed,
            none => none.insert(feeder.open(format).map_err(|error| error.to_string())?),
        };
        let pts = timeline.place(kind, (time.elapsed_secs() * 1e6) as i64, now(), None);
        feeder.set_jumps(timeline.jumps());
        // A push after the end is ignored: the loop checks `is_over`.
        let _taken = feed.push(data, pts);
    }
    last_error.map_or(Ok(()), |error| Err(describe(&error).reason))
}

/// The error as text without the URL, which the crate's messages contain.
fn describe(error: &retina::Error) -> OpenError {
    match error.status_code() {
        Some(code) => OpenError::transient(format!("the server answered {code}")),
        None => OpenError::transient("the server is unreachable or sent malformed RTSP"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_video_and_one_audio_stream_are_used() {
        let mut formats = vec![
            None,
            Some(FeedFormat::Adts),
            Some(FeedFormat::H265),
            Some(FeedFormat::H264),
            Some(FeedFormat::G711 { a_law: true }),
        ];
        keep_the_first_of_each(&mut formats);
        assert_eq!(formats, [None, Some(FeedFormat::Adts), Some(FeedFormat::H265), None, None]);
    }
}
