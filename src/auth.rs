//! Proof of knowledge of a secret, for every connection, before anything else is heard.
