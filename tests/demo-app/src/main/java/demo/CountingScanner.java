package demo;

import org.reflections.scanners.AbstractScanner;

/** Counts the classes that are scanned and stores nothing. */
final class CountingScanner extends AbstractScanner {
    private int count;

    int count() {
        return count;
    }

    @Override
    public void scan(Object cls) {
        count++;
    }
}
