//! Sources that speak RTSP: cameras, and servers of such streams.
//!
//! Owns: the connection, which carries everything (RTP interleaved), so that nothing a server says is connected to.
//! Does not know: RTSP and RTP themselves, which the crate `retina` does.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use retina::client::{
    Credentials, Demuxed, InitialTimestampPolicy, PlayOptions, Session, SessionOptions, SetupOptions, Stream,
    TcpTransportOptions, Transport,
};
use retina::codec::{CodecItem, FrameFormat};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::open::{OpenError, Task};
use crate::codec::intake::{Feed, FeedFormat, Feeder, Intake};
use crate::destination::{Guard, Rtsp};
use crate::dial;

/// How long a server may take until it plays.
const BEGINNING: Duration = Duration::from_secs(10);
/// Times begin here: a stream may begin a little before the other.
const MARGIN: f64 = 1.0;

/// Connects to a server and plays from it.
pub(super) fn open(
    rtsp: &Rtsp,
    guard: &Guard,
    network: &Runtime,
    wake: impl Fn() + Send + Sync + 'static,
) -> Result<(Intake, Task), OpenError> {
    let (intake, feeder) = Intake::fed(wake).map_err(OpenError::passing)?;
    let beginning = network.block_on(async { timeout(BEGINNING, begin(rtsp, guard)).await });
    let (session, formats) = beginning.map_err(|_| OpenError::passing("the server does not answer"))??;
    let task = network.spawn(async move {
        if let Err(reason) = play(session, formats, &feeder).await {
            feeder.fail(reason);
        }
    });
    Ok((intake, Task(task)))
}

/// What is taken of a session's streams: none, or a format.
type Formats = Vec<Option<FeedFormat>>;

async fn begin(rtsp: &Rtsp, guard: &Guard) -> Result<(Demuxed, Formats), OpenError> {
    let address = dial::resolve(&rtsp.endpoint, guard).await.map_err(|error| OpenError::dial(&error))?;
    let url = rtsp.url_at(address.ip()).expose().parse();
    let url = url.map_err(|_| OpenError::lasting("the path of the URL cannot be asked for"))?;
    let login = rtsp.login.as_ref().map(|(name, password)| Credentials {
        username: name.expose().to_owned(),
        password: password.expose().to_owned(),
    });
    let options =
        SessionOptions::default().creds(login).user_agent(concat!("commingle/", env!("CARGO_PKG_VERSION")).to_owned());
    let mut session = Session::describe(url, options).await.map_err(|error| words(&error))?;
    let mut formats: Formats = session.streams().iter().map(format).collect();
    keep_the_first_of_each(&mut formats);
    if formats.iter().all(Option::is_none) {
        return Err(OpenError::passing("the server has nothing that is taken here: H.264, H.265, AAC or G.711"));
    }
    for (i, _) in formats.iter().enumerate().filter(|(_, format)| format.is_some()) {
        let setup = SetupOptions::default()
            .transport(Transport::Tcp(TcpTransportOptions::default()))
            .frame_format(FrameFormat::SIMPLE);
        session.setup(i, setup).await.map_err(|error| words(&error))?;
    }
    // Where a server does not say how its streams' times belong together, they begin together.
    let options = PlayOptions::default().initial_timestamp(InitialTimestampPolicy::Permissive);
    let session = session.play(options).await.map_err(|error| words(&error))?;
    Ok((session.demuxed().map_err(|error| words(&error))?, formats))
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

/// One picture and one sound.
fn keep_the_first_of_each(formats: &mut Formats) {
    for wanted in [true, false] {
        let fits = |format: &&mut Option<FeedFormat>| format.as_ref().is_some_and(|f| is_picture(f) == wanted);
        formats.iter_mut().filter(fits).skip(1).for_each(|format| *format = None);
    }
}

/// Feeds what the server plays until it ends.
async fn play(mut session: Demuxed, formats: Formats, feeder: &Feeder) -> Result<(), String> {
    let mut feeds: Vec<Option<Feed>> = formats.iter().map(|_| None).collect();
    while let Some(item) = session.next().await {
        if feeder.is_over() {
            break;
        }
        let (stream, time, data) = match item.map_err(|error| words(&error).reason)? {
            // Nothing can be shown before the first whole picture.
            CodecItem::VideoFrame(frame) if feeds[frame.stream_id()].is_some() || frame.is_random_access_point() => {
                (frame.stream_id(), frame.timestamp(), Bytes::from(frame.into_data()))
            }
            CodecItem::AudioFrame(frame) => {
                (frame.stream_id(), frame.timestamp(), Bytes::copy_from_slice(frame.data()))
            }
            _ => continue,
        };
        let Some(format) = &formats[stream] else { continue };
        let feed = match &mut feeds[stream] {
            Some(feed) => feed,
            none => none.insert(feeder.open(format).map_err(|error| error.to_string())?),
        };
        let pts = Duration::try_from_secs_f64(time.elapsed_secs() + MARGIN).unwrap_or_default();
        // What is over is not fed: the loop sees that.
        let _taken = feed.push(data, pts);
    }
    Ok(())
}

/// What went wrong, without the URL, which the crate's own words repeat.
fn words(error: &retina::Error) -> OpenError {
    match error.status_code() {
        Some(code) => OpenError::passing(format!("the server answered {code}")),
        None => OpenError::passing("the server cannot be reached, or does not speak RTSP as it should"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_picture_and_one_sound_are_taken() {
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
