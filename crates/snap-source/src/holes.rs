use std::io::{self, Read};

/// A file's bytes as a program sees them: the stored content with zeros where the holes are.
///
/// Content that is shorter than the file without its holes ends the stream with
/// [`io::ErrorKind::UnexpectedEof`]; content that is longer is [`io::ErrorKind::InvalidData`].
pub struct WithHoles<'a, R> {
    content: R,
    holes: &'a [(u64, u64)],
    position: u64,
    size: u64,
}

impl<'a, R: Read> WithHoles<'a, R> {
    /// `holes` as in [`snap_format::NodeKind::File`]: ascending (offset, length) within `size`.
    pub fn new(content: R, holes: &'a [(u64, u64)], size: u64) -> Self {
        Self { content, holes, position: 0, size }
    }

    fn end(&mut self) -> io::Result<usize> {
        match self.content.read(&mut [0]) {
            Ok(0) => Ok(0),
            Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "more content than the file holds")),
            Err(error) => Err(error),
        }
    }
}

impl<R: Read> Read for WithHoles<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.position >= self.size {
            return self.end();
        }
        while self.holes.first().is_some_and(|(offset, length)| offset + length <= self.position) {
            self.holes = &self.holes[1..];
        }
        let hole = self.holes.first().copied().unwrap_or((self.size, 0));
        let in_hole = hole.0 <= self.position;
        let until = if in_hole { hole.0 + hole.1 } else { hole.0.min(self.size) };
        let room = usize::try_from(until - self.position).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = if in_hole {
            buffer[..room].fill(0);
            room
        } else {
            self.content.read(&mut buffer[..room])?
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8], holes: &[(u64, u64)], size: u64) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        WithHoles::new(content, holes, size).read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn zeros_stand_where_the_holes_are() {
        assert_eq!(read(b"abcd", &[], 4).unwrap(), b"abcd");
        assert_eq!(read(b"abcd", &[(0, 2), (4, 1), (7, 2)], 9).unwrap(), b"\0\0ab\0cd\0\0");
        assert_eq!(read(b"", &[(0, 3)], 3).unwrap(), b"\0\0\0");
        assert_eq!(read(b"", &[], 0).unwrap(), b"");
    }

    #[test]
    fn content_of_another_length_is_an_error() {
        assert_eq!(read(b"abc", &[(0, 2)], 6).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(b"abcde", &[(0, 2)], 6).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
