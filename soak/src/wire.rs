//! HTTP/1.1 on the wire, as far as the soak needs it.

use std::io::{Error, ErrorKind, Result};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// The most header fields of a message.
const FIELDS: usize = 32;

/// A connection, and the bytes that were read from it and not used yet.
pub struct Wire<S> {
    /// The connection.
    pub stream: S,
    buffer: BytesMut,
}

/// The form in which the length of a body is given.
#[derive(Clone, Copy)]
pub enum Body {
    /// `Content-Length`.
    Length(usize),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// It ends with the connection.
    ToTheEnd,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Nothing is read yet.
    pub fn new(stream: S) -> Self {
        Wire { stream, buffer: BytesMut::with_capacity(4096) }
    }

    /// The bytes that were read and not used yet.
    pub fn unused(&self) -> &[u8] {
        &self.buffer
    }

    /// Waits for more bytes. Can be cancelled.
    pub async fn more(&mut self) -> Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Waits for a whole header, and passes it to `parse`. Can be cancelled and begun again.
    pub async fn head<T>(&mut self, parse: impl Fn(&[u8]) -> Result<T>) -> Result<T> {
        loop {
            if let Some(length) = find(&self.buffer, b"\r\n\r\n") {
                let parsed = parse(&self.buffer[..length + 4])?;
                self.buffer.advance(length + 4);
                return Ok(parsed);
            }
            self.more().await?;
        }
    }

    /// Reads a body.
    pub async fn body(&mut self, body: Body) -> Result<Vec<u8>> {
        match body {
            Body::Length(length) => self.exactly(length).await,
            Body::Chunked => self.chunks().await,
            Body::ToTheEnd => {
                while self.more().await.is_ok() {}
                Ok(self.buffer.split().to_vec())
            }
        }
    }

    async fn exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.more().await?;
        }
        Ok(self.buffer.split_to(length).to_vec())
    }

    async fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let length = loop {
                if let Some(length) = find(&self.buffer, b"\r\n") {
                    break length;
                }
                self.more().await?;
            };
            let size = std::str::from_utf8(&self.buffer[..length]).map_err(Error::other)?;
            let size = usize::from_str_radix(size, 16).map_err(Error::other)?;
            self.buffer.advance(length + 2);
            let chunk = self.exactly(size + 2).await?;
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// Reads until the connection ends.
    pub async fn drain(&mut self) {
        while self.more().await.is_ok() {
            self.buffer.clear();
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// The fields of a header.
pub struct Fields<'a>(&'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    /// The value of a field, if it is there.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let field = self.0.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(field.value).ok()
    }

    /// The value of a field as a number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.get(name)?.parse().ok()
    }
}

/// Parses the header of a request: its method, its target, its fields.
pub fn request<T>(
    head: &[u8],
    then: impl FnOnce(&str, &str, Fields<'_>) -> Option<T>,
) -> Result<T> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    request.parse(head).map_err(Error::other)?;
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    then(method, target, Fields(request.headers)).ok_or_else(|| ErrorKind::InvalidData.into())
}

/// Parses the header of a response: its status, its fields.
pub fn response<T>(head: &[u8], then: impl FnOnce(u16, Fields<'_>) -> T) -> Result<T> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    response.parse(head).map_err(Error::other)?;
    Ok(then(response.code.unwrap_or_default(), Fields(response.headers)))
}
