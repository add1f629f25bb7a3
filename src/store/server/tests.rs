use super::*;
use crate::error::Code;
use crate::store::conformance::{KEY, OverTcp, secret, soon};
use crate::store::wire::{Request, encode_request};
use crate::store::{Client, Store};
use crate::sys::poll::wait_fd;
use std::process::Command;
use std::thread;

fn far() -> Instant {
    soon(20_000)
}

/// A connection that has proven itself and speaks the codec by hand.
fn raw_client(addr: SocketAddr) -> TcpStream {
    let mut stream = socket::connect_tcp(addr, far()).unwrap();
    crate::auth::dial(&mut stream, KEY, &secret(), Purpose::Store, b"", far()).unwrap();
    stream
}

/// Waits until the server has closed the connection.
fn assert_closed(mut stream: TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buf = [0; 4096];
    loop {
        match stream.read(&mut buf) {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return,
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn a_wrong_secret_or_key_is_unauthorized() {
    let f = OverTcp::start();
    let wrong = Secret(vec![1; 32]);
    for (id, s) in [(KEY, &wrong), (KeyId([9; 16]), &secret())] {
        let e = Client::connect_to(f.0.addr(), id, s, far()).err().unwrap();
        assert_eq!(e.code, Code::Unauthorized, "{e}");
    }
    let address = format!("tcp://localhost:{}", f.0.addr().port());
    let client = Client::connect(&address, KEY, &secret(), far()).unwrap();
    client.ping(far()).unwrap();
}

#[test]
fn a_server_that_knows_no_secret_is_unauthorized() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::start(listener, Arc::new(|_| Some(Secret(vec![5; 32])))).unwrap();
    let e = Client::connect_to(server.addr(), KEY, &secret(), far()).err().unwrap();
    assert_eq!(e.code, Code::Unauthorized);
}

#[test]
fn nobody_there_something_else_there_and_silence_differ() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let connect = |ms| Client::connect_to(addr, KEY, &secret(), soon(ms)).err().unwrap();
    // The backlog takes the connection, nobody answers.
    assert_eq!(connect(60).code, Code::Timeout);
    thread::scope(|scope| {
        scope.spawn(|| {
            drop(listener.accept().unwrap());
            let (mut other, _) = listener.accept().unwrap();
            other.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").unwrap();
            assert_closed(other);
        });
        assert_eq!(connect(5000).code, Code::InvalidUsage);
    });
    drop(listener);
    let begin = Instant::now();
    assert_eq!(connect(5000).code, Code::System);
    assert!(begin.elapsed() < Duration::from_secs(2));
}

#[test]
fn other_purposes_are_not_served() {
    let f = OverTcp::start();
    let mut stream = socket::connect_tcp(f.0.addr(), far()).unwrap();
    let e = crate::auth::dial(&mut stream, KEY, &secret(), Purpose::Data, b"", far()).unwrap_err();
    assert_eq!(e.code, Code::System);
}

#[test]
fn each_key_has_a_store_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::start(listener, Arc::new(|id| Some(Secret(id.0.to_vec())))).unwrap();
    let connect = |n: u8| {
        let (id, s) = (KeyId([n; 16]), Secret(vec![n; 16]));
        Client::connect_to(server.addr(), id, &s, far()).unwrap()
    };
    let (a, b) = (connect(1), connect(2));
    a.set(b"k", b"a", None, far()).unwrap();
    let lease = a.lease(Duration::from_secs(60), far()).unwrap();
    assert_eq!(b.get(b"k", far()).unwrap(), None);
    assert!(b.set(b"k", b"b", Some(lease), far()).is_err());
    assert_eq!(b.delete_prefix(b"", far()).unwrap(), 0);
    // What has no lease survives its clients; a store that was empty begins above its last revision.
    let before = b.list(b"", far()).unwrap().revision;
    b.set(b"x", b"", None, far()).unwrap();
    b.delete_prefix(b"", far()).unwrap();
    drop((a, b));
    assert_eq!(connect(1).get(b"k", far()).unwrap().as_deref(), Some(&b"a"[..]));
    let again = connect(2);
    assert!(again.watch(b"", before, far()).unwrap().entries.is_empty());
}

#[test]
fn garbage_is_sent_away_and_disturbs_nobody() {
    let f = OverTcp::start();
    let client = f.connect();
    let lease = client.lease(Duration::from_secs(60), far()).unwrap();
    client.set(b"k", b"v", Some(lease), far()).unwrap();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 5000], b"mwauth\x01\x00garbage and then nothing"]
    {
        let mut stream = socket::connect_tcp(f.0.addr(), far()).unwrap();
        // The server may hang up before all is written.
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(Shutdown::Write);
        assert_closed(stream);
    }
    // Garbage of somebody who knows the secret costs him his connection, and his leases.
    for garbage in [&[0xff; 64][..], &[1, 0, 0, 0, 0], &[9, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 77]] {
        let mut stream = raw_client(f.0.addr());
        stream.write_all(garbage).unwrap();
        assert_closed(stream);
    }
    assert_eq!(client.get(b"k", far()).unwrap().as_deref(), Some(&b"v"[..]));
}

#[test]
fn requests_may_follow_the_handshake_in_the_same_packet_and_in_pieces() {
    let f = OverTcp::start();
    let mut stream = socket::connect_tcp(f.0.addr(), far()).unwrap();
    let mut hs =
        crate::auth::ClientHandshake::new(KEY, &secret(), Purpose::Store, b"", nonce().unwrap()).unwrap();
    let mut greeting = vec![0; hs.wanted()];
    stream.read_exact(&mut greeting).unwrap();
    let Ok((_, crate::auth::ClientStep::Send(mut bytes))) = hs.receive(&greeting) else { panic!() };
    encode_request(7, &Request::Get { key: b"k".to_vec() }, &mut bytes);
    let half = bytes.len() - 3;
    stream.write_all(&bytes[..half]).unwrap();
    thread::sleep(Duration::from_millis(20));
    stream.write_all(&bytes[half..]).unwrap();
    let mut verdict = vec![0; hs.wanted()];
    stream.read_exact(&mut verdict).unwrap();
    assert!(matches!(hs.receive(&verdict).unwrap(), (33, crate::auth::ClientStep::Done { .. })));
    let mut answer = [0; 4 + 8 + 1 + 1];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(wire::decode_answer(&answer[4..]).unwrap(), (7, wire::Answer::Value(None)));
}

#[test]
fn strangers_who_wait_make_room_and_run_out_of_time() {
    let f = OverTcp::start();
    let strangers: Vec<_> =
        (0..HALF_OPEN + 40).map(|_| socket::connect_tcp(f.0.addr(), far()).unwrap()).collect();
    // A friend comes in past them all, and the oldest stranger is gone.
    let begin = Instant::now();
    f.connect().ping(far()).unwrap();
    assert!(begin.elapsed() < HANDSHAKE / 2);
    let mut strangers = strangers.into_iter();
    assert_closed(strangers.next().unwrap());
    assert!(begin.elapsed() < HANDSHAKE / 2);
    let last = strangers.next_back().unwrap();
    assert_closed(last);
    let took = begin.elapsed();
    assert!(took > HANDSHAKE / 2 && took < HANDSHAKE * 3, "{took:?}");
}

#[test]
fn a_flood_of_connections_does_not_disturb_a_client() {
    let f = OverTcp::start();
    let (client, watcher) = (f.connect(), f.connect());
    let lease = client.lease(Duration::from_millis(900), far()).unwrap();
    client.set(b"leased", b"", Some(lease), far()).unwrap();
    let addr = f.0.addr();
    let begin = Instant::now();
    let mut worst = Duration::ZERO;
    thread::scope(|scope| {
        let floods: Vec<_> = (0..2)
            .map(|i| {
                scope.spawn(move || {
                    let mut held = VecDeque::new();
                    for n in 0..1000 {
                        let mut stream = socket::connect_tcp(addr, far()).unwrap();
                        // Some say nothing, some send garbage, some hang up; all the others pile up.
                        match (n + i) % 3 {
                            0 => drop(stream),
                            k => {
                                if k == 1 {
                                    let _ = stream.write_all(b"mwauth\x01\x00 let me in");
                                }
                                held.push_back(stream);
                            }
                        }
                        if held.len() > 100 {
                            held.pop_front();
                        }
                    }
                })
            })
            .collect();
        let mut n = 0u64;
        while !floods.iter().all(|t| t.is_finished()) || n < 50 {
            let at = Instant::now();
            client.set(b"n", &n.to_le_bytes(), None, far()).unwrap();
            worst = worst.max(at.elapsed());
            n += 1;
        }
    });
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    assert!(worst < Duration::from_secs(1), "{worst:?}");
    assert!(watcher.get(b"leased", far()).unwrap().is_some());
    f.connect().ping(far()).unwrap();
}

#[test]
fn a_change_reaches_a_watch_quickly() {
    let f = OverTcp::start();
    let (a, b) = (f.connect(), f.connect());
    let mut best = Duration::MAX;
    for n in 0..20u8 {
        let after = a.list(b"", far()).unwrap().revision;
        best = best.min(thread::scope(|scope| {
            let watch = scope.spawn(|| {
                a.watch(b"k", after, far()).unwrap();
                Instant::now()
            });
            thread::sleep(Duration::from_millis(3));
            let begin = Instant::now();
            b.set(b"k", &[n], None, far()).unwrap();
            watch.join().unwrap().saturating_duration_since(begin)
        }));
    }
    // The machine may be busy; a delay by design (Nagle, a polling interval) would show every time.
    assert!(best < Duration::from_millis(2), "{best:?}");
}

#[test]
fn the_end_of_the_store_is_noticed_by_waiting_idle_and_new_clients() {
    let f = OverTcp::start();
    let addr = f.0.addr();
    let (busy, idle) = (f.connect(), f.connect());
    assert!(idle.lost().is_none());
    thread::scope(|scope| {
        let once = Client::connect_once(addr, KEY, &secret(), far()).unwrap();
        let ends = scope.spawn(move || once.watch(b"k", 0, far()));
        let waits: Vec<_> = (0..3).map(|_| scope.spawn(|| busy.watch(b"k", 0, soon(500)))).collect();
        thread::sleep(Duration::from_millis(30));
        let fd = idle.session_fd().unwrap();
        let begin = Instant::now();
        drop(f);
        assert_eq!(ends.join().unwrap().unwrap_err().code, Code::System);
        assert!(wait_fd(&fd, Interest::HANGUP, far()).unwrap());
        // The others would go on, should it come back.
        for w in waits {
            let e = w.join().unwrap().unwrap_err();
            assert!(e.code == Code::Timeout && e.text.contains("connection is lost"), "{e}");
        }
        assert!(begin.elapsed() < Duration::from_secs(2));
    });
    assert!(idle.lost().is_some());
    assert_eq!(idle.get(b"k", soon(50)).unwrap_err().code, Code::Timeout);
    assert!(idle.session_fd().is_err());
    let e = Client::connect_to(addr, KEY, &secret(), far()).err().unwrap();
    assert_eq!(e.code, Code::System);
}

#[test]
fn answers_alone_are_no_hangup() {
    let f = OverTcp::start();
    let client = f.connect();
    client.set(b"k", b"", None, far()).unwrap();
    assert!(!wait_fd(&client.session_fd().unwrap(), Interest::HANGUP, soon(20)).unwrap());
}

#[test]
fn a_client_that_never_reads_is_choked_then_served() {
    let f = OverTcp::start();
    let client = f.connect();
    for n in 0..40u8 {
        client.set(&[b'k', n], &[n; wire::MAX_VALUE], None, far()).unwrap();
    }
    // 100 lists of 2.5 MiB each, of which nobody reads any: the server must not buffer 250 MiB, nor stall.
    let mut stream = raw_client(f.0.addr());
    let mut out = Vec::new();
    for id in 0..100 {
        encode_request(id, &Request::List { prefix: b"k".to_vec() }, &mut out);
    }
    stream.write_all(&out).unwrap();
    thread::sleep(Duration::from_millis(100));
    client.ping(far()).unwrap();
    // Once it reads, it gets all of them, in order.
    let mut frames = Frames::new(wire::MAX_ANSWER);
    let mut buf = vec![0; 256 * 1024];
    let mut next = 0;
    while next < 100 {
        let n = stream.read(&mut buf).unwrap();
        assert!(n > 0);
        frames.extend(&buf[..n]);
        while let Some(body) = frames.next_body().unwrap() {
            assert_eq!(body[..8], u64::to_le_bytes(next));
            next += 1;
        }
    }
}

#[test]
fn a_call_with_a_stopped_store_ends_at_its_deadline() {
    // A listener that shakes hands and then says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            crate::auth::accept(&mut stream, &|_| Some(secret()), far()).unwrap();
            let mut welcome = Vec::new();
            let answer =
                wire::Answer::Welcome { incarnation: 1, resumed: false, returns: false, leases: Vec::new() };
            wire::encode_answer(0, &answer, &mut welcome);
            stream.write_all(&welcome).unwrap();
            thread::sleep(Duration::from_millis(400));
        });
        let client = Client::connect_to(addr, KEY, &secret(), far()).unwrap();
        let begin = Instant::now();
        assert_eq!(client.get(b"k", soon(50)).unwrap_err().code, Code::Timeout);
        // Enough to fill the socket: what cannot be sent in time is a timeout, too.
        let mut timeouts = 0;
        while begin.elapsed() < Duration::from_millis(250) {
            let e = client.set(b"k", &[0; wire::MAX_VALUE], None, soon(1)).unwrap_err();
            timeouts += u32::from(e.code == Code::Timeout);
        }
        assert!(timeouts > 3);
        assert!(begin.elapsed() < Duration::from_millis(800));
    });
}

#[test]
fn running_out_of_descriptors_is_survived() {
    // Limits are the process's: the scenario runs in one of its own.
    let exe = std::env::current_exe().unwrap();
    let out = Command::new("sh")
        .args([
            "-c",
            "ulimit -n 40 && exec \"$0\" --exact --ignored store::server::tests::out_of_descriptors",
        ])
        .arg(exe)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "needs a low limit of descriptors; run by running_out_of_descriptors_is_survived"]
fn out_of_descriptors() {
    let f = OverTcp::start();
    let client = f.connect();
    // Take all that are left, then leave room for the near end of one connection only.
    let mut hogs: Vec<TcpListener> = Vec::new();
    while let Ok(fd) = TcpListener::bind("127.0.0.1:0") {
        hogs.push(fd);
    }
    assert!(hogs.len() > 3 && hogs.len() < 40, "{}", hogs.len());
    hogs.pop();
    let addr = f.0.addr();
    thread::scope(|scope| {
        let late = scope.spawn(move || Client::connect_to(addr, KEY, &secret(), far()));
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(200) {
            client.set(b"k", b"v", None, far()).unwrap();
        }
        assert!(!late.is_finished(), "there was no descriptor for it");
        hogs.clear();
        late.join().unwrap().unwrap().ping(far()).unwrap();
        assert!(begin.elapsed() < Duration::from_secs(3));
    });
}
