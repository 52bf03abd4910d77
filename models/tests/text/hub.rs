//! A small server that speaks what the hub speaks: one file, by ranges, and a wire that can break.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub(crate) struct Hub {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    file: Vec<u8>,
    /// The connection is closed after this many bytes of the file.
    break_after: Option<usize>,
    paths: Vec<String>,
    starts: Vec<usize>,
}

impl Hub {
    pub(crate) fn start(file: Vec<u8>) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { file, break_after: None, paths: vec![], starts: vec![] };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that goes away in the middle is nothing to fail for.
                let _ = answer(stream.unwrap(), &shared);
            }
        });
        Hub { address, state }
    }

    pub(crate) fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn break_after(&self, bytes: usize) {
        self.state.lock().unwrap().break_after = Some(bytes);
    }

    pub(crate) fn mend(&self) {
        self.state.lock().unwrap().break_after = None;
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.state.lock().unwrap().paths.clone()
    }

    /// Where each requested range began.
    pub(crate) fn starts(&self) -> Vec<usize> {
        self.state.lock().unwrap().starts.clone()
    }
}

fn answer(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    let mut range = (0, usize::MAX);
    for line in lines {
        let line = line?.to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some((from, to)) = line.strip_prefix("range: bytes=").and_then(|range| range.split_once('-')) {
            range = (from.parse().unwrap_or(0), to.parse().unwrap_or(usize::MAX));
        }
    }
    let mut state = state.lock().unwrap();
    state.paths.push(request.split(' ').nth(1).unwrap_or_default().to_owned());
    state.starts.push(range.0);
    let total = state.file.len();
    let end = range.1.saturating_add(1).min(total);
    let body = &state.file[range.0.min(end)..end];
    let sent = body.len().min(state.break_after.unwrap_or(usize::MAX));
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\ncontent-length: {}\r\ncontent-range: bytes {}-{}/{total}\r\n\
         etag: \"tag\"\r\nx-repo-commit: abc\r\nconnection: close\r\n\r\n",
        body.len(),
        range.0,
        end.saturating_sub(1)
    )?;
    stream.write_all(&body[..sent])
}
