package demo;

import java.io.BufferedInputStream;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.URL;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.zip.ZipEntry;
import java.util.zip.ZipInputStream;
import org.reflections.vfs.Vfs;

/**
 * Reads a nested jar as one stream with one Inflater, which ends when the jar is closed.
 *
 * <p>This is the repair of what {@link ConfigScanner} does to native memory otherwise. What is left are
 * the Inflaters of Spring Boot's class loader, which loads the supertypes that Reflections asks for.
 */
final class ClosedJars implements Vfs.UrlType {
    private static final String ROOT = "!/";

    private ClosedJars() {}

    /** Lets Reflections read every nested jar this way; directories inside a jar stay as they are. */
    static void use() {
        Vfs.addDefaultURLTypes(new ClosedJars());
    }

    @Override
    public boolean matches(URL url) {
        return url.getProtocol().equals("jar") && url.getPath().endsWith(".jar" + ROOT);
    }

    @Override
    public Vfs.Dir createDir(URL url) throws IOException {
        String jar = url.toExternalForm();
        return new Jar(new URL(jar.substring(0, jar.length() - ROOT.length())));
    }

    /** The entries of one jar, in the order of the file; an entry is read before the next is asked for. */
    private static final class Jar implements Vfs.Dir {
        private final URL url;
        private final ZipInputStream zip;

        Jar(URL url) throws IOException {
            this.url = url;
            this.zip = new ZipInputStream(new BufferedInputStream(url.openStream(), 1 << 16));
        }

        @Override
        public String getPath() {
            return url.getPath();
        }

        @Override
        public Iterable<Vfs.File> getFiles() {
            return Entries::new;
        }

        @Override
        public void close() {
            try {
                zip.close();
            } catch (IOException failure) {
                throw new UncheckedIOException(failure);
            }
        }

        private final class Entries implements Iterator<Vfs.File> {
            private ZipEntry next = advance();

            @Override
            public boolean hasNext() {
                return next != null;
            }

            @Override
            public Vfs.File next() {
                if (next == null) {
                    throw new NoSuchElementException();
                }
                Vfs.File file = new Entry(next.getName(), contents());
                next = advance();
                return file;
            }

            private ZipEntry advance() {
                try {
                    ZipEntry entry = zip.getNextEntry();
                    while (entry != null && entry.isDirectory()) {
                        entry = zip.getNextEntry();
                    }
                    return entry;
                } catch (IOException failure) {
                    throw new UncheckedIOException(failure);
                }
            }

            private byte[] contents() {
                try {
                    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
                    byte[] buffer = new byte[1 << 13];
                    for (int n = zip.read(buffer); n >= 0; n = zip.read(buffer)) {
                        bytes.write(buffer, 0, n);
                    }
                    return bytes.toByteArray();
                } catch (IOException failure) {
                    throw new UncheckedIOException(failure);
                }
            }
        }
    }

    private static final class Entry implements Vfs.File {
        private final String path;
        private final byte[] contents;

        Entry(String path, byte[] contents) {
            this.path = path;
            this.contents = contents;
        }

        @Override
        public String getName() {
            return path.substring(path.lastIndexOf('/') + 1);
        }

        @Override
        public String getRelativePath() {
            return path;
        }

        @Override
        public InputStream openInputStream() {
            return new ByteArrayInputStream(contents);
        }
    }
}
