//! The two ends of the handshake as state machines: bytes in, bytes out.

use super::{HmacSha256, KeyId, MAX_CLAIM, NONCE, Purpose, derive, mac};
use crate::error::{Code, Error, Extent, Result};
use crate::types::Secret;
use hmac::Mac;

const MAGIC: &[u8; 6] = b"mwauth";
const VERSION: u16 = 1;
const PREFIX: usize = 8;
const MAC: usize = 32;

/// Bytes of the server's greeting.
pub const GREETING: usize = PREFIX + NONCE;
/// Bytes of the client's response.
pub const RESPONSE: usize = SIGNED + MAC;
/// Bytes of the server's verdict.
pub const VERDICT: usize = 1 + MAC;

// Layout of the response.
const KEY_ID: usize = PREFIX;
const CLIENT_NONCE: usize = KEY_ID + 16;
const PURPOSE: usize = CLIENT_NONCE + NONCE;
const CLAIM_LEN: usize = PURPOSE + 1;
const CLAIM: usize = CLAIM_LEN + 2;
const SIGNED: usize = CLAIM + MAX_CLAIM;

/// What a refused client is told, whatever the reason.
const REFUSAL: [u8; VERDICT] = [0; VERDICT];

fn prefix() -> [u8; PREFIX] {
    let mut out = [0; PREFIX];
    out[..6].copy_from_slice(MAGIC);
    out[6..].copy_from_slice(&VERSION.to_le_bytes());
    out
}

/// The role's MAC over everything said so far.
fn prove(secret: &Secret, role: &str, greeting: &[u8], response: &[u8]) -> HmacSha256 {
    mac(&derive(secret, role, &[]), &[greeting, response])
}

const CLIENT: &str = "handshake client";
const SERVER: &str = "handshake server";
const SESSION: &str = "handshake session";

/// Collects a frame of `N` bytes from pieces of any size.
struct Frame<const N: usize> {
    bytes: [u8; N],
    have: usize,
}

impl<const N: usize> Frame<N> {
    fn new() -> Self {
        Frame { bytes: [0; N], have: 0 }
    }

    /// Takes what it needs of `input`; answers how much that was.
    fn take(&mut self, input: &[u8]) -> usize {
        let n = input.len().min(self.wanted());
        self.bytes[self.have..self.have + n].copy_from_slice(&input[..n]);
        self.have += n;
        n
    }

    fn wanted(&self) -> usize {
        N - self.have
    }
}

/// What came of the client's last input.
#[derive(Debug)]
pub enum ClientStep {
    /// More bytes of the server are needed.
    NeedMore,
    /// To be sent to the server. After it, more bytes of the server are needed.
    Send(Vec<u8>),
    /// Both sides have proven themselves. What follows on the connection belongs to the next protocol.
    Done {
        /// A key that only this client and this server know and that no other connection has.
        session: Secret,
    },
}

/// The dialling side.
pub struct ClientHandshake {
    secret: Secret,
    response: [u8; RESPONSE],
    greeting: Frame<GREETING>,
    verdict: Frame<VERDICT>,
}

impl ClientHandshake {
    /// The handshake of one connection; `nonce` is fresh. An error when the secret is empty or the claim is
    /// too long.
    pub fn new(
        key_id: KeyId,
        secret: &Secret,
        purpose: Purpose,
        claim: &[u8],
        nonce: [u8; NONCE],
    ) -> Result<ClientHandshake> {
        if secret.0.is_empty() {
            return Err(Error::argument("secret: is empty"));
        }
        if claim.len() > MAX_CLAIM {
            return Err(Error::argument(format!(
                "claim: has {} bytes, {MAX_CLAIM} are allowed",
                claim.len()
            )));
        }
        let mut response = [0; RESPONSE];
        response[..PREFIX].copy_from_slice(&prefix());
        response[KEY_ID..CLIENT_NONCE].copy_from_slice(&key_id.0);
        response[CLIENT_NONCE..PURPOSE].copy_from_slice(&nonce);
        response[PURPOSE] = purpose as u8;
        response[CLAIM_LEN..CLAIM].copy_from_slice(&(claim.len() as u16).to_le_bytes());
        response[CLAIM..CLAIM + claim.len()].copy_from_slice(claim);
        Ok(ClientHandshake {
            secret: secret.clone(),
            response,
            greeting: Frame::new(),
            verdict: Frame::new(),
        })
    }

    /// How many more bytes of the server belong to the handshake's next step: whoever reads no more than this
    /// never reads a byte of the next protocol.
    pub fn wanted(&self) -> usize {
        match self.greeting.wanted() {
            0 => self.verdict.wanted(),
            n => n,
        }
    }

    /// Takes bytes of the server; answers how many of them it used. The rest is for the next call, or after
    /// [`ClientStep::Done`] for the next protocol. `Code::Unauthorized`: one of the two does not know the
    /// secret. `Code::InvalidUsage`: that is no multiworld server, or one of another version.
    pub fn receive(&mut self, input: &[u8]) -> Result<(usize, ClientStep)> {
        if self.greeting.wanted() > 0 {
            let used = self.greeting.take(input);
            check_prefix(&self.greeting.bytes, self.greeting.have)?;
            if self.greeting.wanted() > 0 {
                return Ok((used, ClientStep::NeedMore));
            }
            let proof =
                prove(&self.secret, CLIENT, &self.greeting.bytes, &self.response[..SIGNED]).finalize();
            self.response[SIGNED..].copy_from_slice(&proof.into_bytes());
            return Ok((used, ClientStep::Send(self.response.to_vec())));
        }
        let used = self.verdict.take(input);
        if self.verdict.wanted() > 0 {
            return Ok((used, ClientStep::NeedMore));
        }
        if self.verdict.bytes[0] != 1 {
            return Err(unauthorized("the peer refused the secret"));
        }
        if prove(&self.secret, SERVER, &self.greeting.bytes, &self.response)
            .verify_slice(&self.verdict.bytes[1..])
            .is_err()
        {
            return Err(unauthorized("the peer that was dialled does not know the secret"));
        }
        let session = session(&self.secret, &self.greeting.bytes, &self.response);
        Ok((used, ClientStep::Done { session }))
    }
}

/// Who has authenticated itself.
#[derive(Debug)]
pub struct Peer {
    /// Which secret it knows.
    pub key_id: KeyId,
    /// What the connection is for.
    pub purpose: Purpose,
    /// What it says about itself; vouched for by the secret.
    pub claim: Vec<u8>,
    /// A key that only this client and this server know and that no other connection has.
    pub session: Secret,
}

/// What came of the server's last input.
#[derive(Debug)]
pub enum ServerStep {
    /// More bytes of the client are needed.
    NeedMore,
    /// The client knows the secret. `reply` is to be sent to it; what follows belongs to the next protocol.
    Done {
        /// The verdict.
        reply: [u8; VERDICT],
        /// The client.
        peer: Peer,
    },
    /// A stranger. `reply` may be sent to it, so that a client with a wrong secret learns so; then close.
    Refused {
        /// The verdict; the same whatever the reason.
        reply: [u8; VERDICT],
        /// The reason, for our own log.
        reason: Error,
    },
}

/// The accepting side.
pub struct ServerHandshake {
    greeting: [u8; GREETING],
    response: Frame<RESPONSE>,
}

impl ServerHandshake {
    /// The handshake of one connection; `nonce` is fresh.
    pub fn new(nonce: [u8; NONCE]) -> ServerHandshake {
        let mut greeting = [0; GREETING];
        greeting[..PREFIX].copy_from_slice(&prefix());
        greeting[PREFIX..].copy_from_slice(&nonce);
        ServerHandshake { greeting, response: Frame::new() }
    }

    /// What to send first.
    pub fn greeting(&self) -> [u8; GREETING] {
        self.greeting
    }

    /// How many more bytes of the client belong to the handshake.
    pub fn wanted(&self) -> usize {
        self.response.wanted()
    }

    /// Takes bytes of the client; answers how many of them it used. `lookup` gives the secret of a key id.
    pub fn receive(
        &mut self,
        input: &[u8],
        lookup: &(impl Fn(KeyId) -> Option<Secret> + ?Sized),
    ) -> (usize, ServerStep) {
        let used = self.response.take(input);
        if let Err(reason) = check_prefix(&self.response.bytes, self.response.have) {
            return (used, ServerStep::Refused { reply: REFUSAL, reason });
        }
        if self.response.wanted() > 0 {
            return (used, ServerStep::NeedMore);
        }
        let step = match self.judge(lookup) {
            Ok((reply, peer)) => ServerStep::Done { reply, peer },
            Err(reason) => ServerStep::Refused { reply: REFUSAL, reason },
        };
        (used, step)
    }

    fn judge(&self, lookup: &(impl Fn(KeyId) -> Option<Secret> + ?Sized)) -> Result<([u8; VERDICT], Peer)> {
        let response = &self.response.bytes;
        let mut key_id = KeyId([0; 16]);
        key_id.0.copy_from_slice(&response[KEY_ID..CLIENT_NONCE]);
        // An unknown key id takes the same path and time as a wrong secret.
        let known = lookup(key_id).filter(|s| !s.0.is_empty());
        let is_known = known.is_some();
        let secret = known.unwrap_or_else(|| Secret(vec![0; 32]));
        let proven = prove(&secret, CLIENT, &self.greeting, &response[..SIGNED])
            .verify_slice(&response[SIGNED..])
            .is_ok();
        if !(proven & is_known) {
            return Err(unauthorized("unknown key or wrong secret"));
        }

        let len = usize::from(u16::from_le_bytes([response[CLAIM_LEN], response[CLAIM_LEN + 1]]));
        let claim =
            response[CLAIM..SIGNED].get(..len).ok_or_else(|| malformed("a claim that is too long"))?;
        let purpose =
            Purpose::from_raw(response[PURPOSE]).ok_or_else(|| malformed("a purpose that is unknown"))?;
        let mut reply = [1; VERDICT];
        let proof = prove(&secret, SERVER, &self.greeting, response).finalize();
        reply[1..].copy_from_slice(&proof.into_bytes());
        let session = session(&secret, &self.greeting, response);
        Ok((reply, Peer { key_id, purpose, claim: claim.to_vec(), session }))
    }
}

fn session(secret: &Secret, greeting: &[u8], response: &[u8]) -> Secret {
    Secret(prove(secret, SESSION, greeting, response).finalize().into_bytes().to_vec())
}

/// Checks as much of the prefix as is there: a stranger is sent away with his first wrong byte.
fn check_prefix(frame: &[u8], have: usize) -> Result<()> {
    let have = have.min(PREFIX);
    let expected = prefix();
    if frame[..have] == expected[..have] {
        return Ok(());
    }
    if have == PREFIX && frame[..6] == expected[..6] {
        let theirs = u16::from_le_bytes([frame[6], frame[7]]);
        return Err(malformed(&format!("handshake version {theirs}, this side version {VERSION}")));
    }
    if frame[..have.min(6)] == expected[..have.min(6)] {
        // Only half of the version is there.
        return Ok(());
    }
    Err(malformed("another protocol"))
}

fn unauthorized(text: &str) -> Error {
    Error::new(Code::Unauthorized, Extent::Operation, text)
}

fn malformed(text: &str) -> Error {
    Error::new(Code::InvalidUsage, Extent::Operation, format!("the peer speaks {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: KeyId = KeyId([7; 16]);

    fn secret(x: u8) -> Secret {
        Secret(vec![x; 32])
    }

    fn client(secret: &Secret, claim: &[u8]) -> ClientHandshake {
        ClientHandshake::new(ID, secret, Purpose::Data, claim, [3; 32]).unwrap()
    }

    fn respond(client: &mut ClientHandshake, server: &ServerHandshake) -> Vec<u8> {
        match client.receive(&server.greeting()).unwrap() {
            (GREETING, ClientStep::Send(bytes)) => bytes,
            other => panic!("{other:?}"),
        }
    }

    fn lookup(id: KeyId) -> Option<Secret> {
        (id == ID).then(|| secret(1))
    }

    #[test]
    fn both_sides_agree_and_leftovers_stay() {
        let mut server = ServerHandshake::new([9; 32]);
        let mut client = client(&secret(1), b"rank 3");
        let mut response = respond(&mut client, &server);
        assert_eq!((client.wanted(), server.wanted()), (VERDICT, RESPONSE));
        response.extend_from_slice(b"next protocol");
        let (used, step) = server.receive(&response, &lookup);
        assert_eq!(&response[used..], b"next protocol");
        let ServerStep::Done { reply, peer } = step else { panic!() };
        assert_eq!((peer.key_id, peer.purpose, peer.claim.as_slice()), (ID, Purpose::Data, &b"rank 3"[..]));
        let mut reply = reply.to_vec();
        reply.push(0xaa);
        let (used, step) = client.receive(&reply).unwrap();
        assert_eq!(used, VERDICT);
        let ClientStep::Done { session } = step else { panic!() };
        assert_eq!(session, peer.session);
        assert_eq!(session.0.len(), 32);
    }

    #[test]
    fn one_byte_at_a_time_is_enough() {
        let mut server = ServerHandshake::new([9; 32]);
        let mut client = client(&secret(1), &[5; MAX_CLAIM]);
        let mut response = Vec::new();
        for b in server.greeting() {
            if let (1, ClientStep::Send(bytes)) = client.receive(&[b]).unwrap() {
                response = bytes;
            }
        }
        let mut verdict = None;
        for b in response {
            if let (1, ServerStep::Done { reply, peer }) = server.receive(&[b], &lookup) {
                assert_eq!(peer.claim, [5; MAX_CLAIM]);
                verdict = Some(reply);
            }
        }
        let mut done = false;
        for b in verdict.unwrap() {
            done = matches!(client.receive(&[b]).unwrap(), (1, ClientStep::Done { .. }));
        }
        assert!(done);
    }

    #[test]
    fn a_wrong_secret_and_an_unknown_key_look_the_same() {
        let mut replies = Vec::new();
        for (s, id) in [(2, ID), (1, KeyId([8; 16])), (0, KeyId([8; 16]))] {
            let mut server = ServerHandshake::new([9; 32]);
            let mut client = ClientHandshake::new(id, &secret(s), Purpose::Store, b"", [3; 32]).unwrap();
            let response = respond(&mut client, &server);
            let (RESPONSE, ServerStep::Refused { reply, reason }) = server.receive(&response, &lookup) else {
                panic!()
            };
            assert_eq!(reason.code, Code::Unauthorized);
            assert_eq!(client.receive(&reply).unwrap_err().code, Code::Unauthorized);
            replies.push((reply, reason));
        }
        assert!(replies.iter().all(|r| *r == replies[0]));
    }

    #[test]
    fn an_empty_secret_opens_nothing() {
        assert!(ClientHandshake::new(ID, &Secret(vec![]), Purpose::Store, b"", [0; 32]).is_err());
        let mut server = ServerHandshake::new([9; 32]);
        let mut client = client(&secret(0), b"");
        let response = respond(&mut client, &server);
        let (_, step) = server.receive(&response, &|_| Some(Secret(vec![])));
        assert!(matches!(step, ServerStep::Refused { .. }));
    }

    #[test]
    fn a_server_without_the_secret_is_refused() {
        let mut server = ServerHandshake::new([9; 32]);
        let mut client = client(&secret(1), b"");
        let response = respond(&mut client, &server);
        // It says yes, and even echoes the client's own proof.
        let mut lie = [1; VERDICT];
        lie[1..].copy_from_slice(&response[SIGNED..]);
        assert_eq!(client.receive(&lie).unwrap_err().code, Code::Unauthorized);
        let _ = server.receive(&response, &lookup);
    }

    #[test]
    fn a_response_is_worth_nothing_under_another_nonce() {
        let mut client = client(&secret(1), b"");
        let response = respond(&mut client, &ServerHandshake::new([9; 32]));
        let (_, step) = ServerHandshake::new([10; 32]).receive(&response, &lookup);
        assert!(matches!(step, ServerStep::Refused { .. }));
    }

    #[test]
    fn another_protocol_is_refused_at_its_first_byte() {
        let mut server = ServerHandshake::new([9; 32]);
        assert!(matches!(server.receive(b"GET / HTTP/1.1\r\n", &lookup), (_, ServerStep::Refused { .. })));
        let e = client(&secret(1), b"").receive(b"SSH-2.0").unwrap_err();
        assert_eq!(e.code, Code::InvalidUsage);
        let e = client(&secret(1), b"").receive(b"mwauth\x02\x00").unwrap_err();
        assert!(e.text.contains("version 2"), "{e}");
    }

    #[test]
    fn a_long_claim_is_an_argument_error() {
        let e = ClientHandshake::new(ID, &secret(1), Purpose::Data, &[0; MAX_CLAIM + 1], [0; 32]).err();
        assert_eq!(e.unwrap().code, Code::InvalidArgument);
    }

    proptest! {
        #[test]
        fn every_flipped_bit_is_noticed(at in 0..RESPONSE, bit in 0..8u32) {
            let mut server = ServerHandshake::new([9; 32]);
            let mut client = client(&secret(1), b"claim");
            let mut response = respond(&mut client, &server);
            response[at] ^= 1 << bit;
            let refused = matches!(server.receive(&response, &lookup), (_, ServerStep::Refused { .. }));
            prop_assert!(refused);
        }

        #[test]
        fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..800)) {
            let mut server = ServerHandshake::new([9; 32]);
            let (used, step) = server.receive(&bytes, &lookup);
            prop_assert!(used <= RESPONSE);
            let done = matches!(step, ServerStep::Done { .. });
            prop_assert!(!done);
            let mut client = client(&secret(1), b"");
            if let Ok((_, step)) = client.receive(&bytes) {
                let done = matches!(step, ClientStep::Done { .. });
                prop_assert!(!done);
            }
        }
    }
}
