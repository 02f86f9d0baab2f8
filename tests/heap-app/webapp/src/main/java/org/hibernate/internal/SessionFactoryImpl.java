package org.hibernate.internal;

import java.util.HashMap;
import java.util.Map;

/** Stands for Hibernate's: one for each start of an application, and most of what the application keeps. */
public final class SessionFactoryImpl {
    /** Bytes of the cache alone, a lower bound of what a factory keeps. */
    public static final int CACHE_BYTES = 1 << 20;

    private static final int ENTITIES = 10_000;

    private final String name;
    private final byte[] cache = new byte[CACHE_BYTES];
    private final Map<String, Object> entities = new HashMap<>();

    public SessionFactoryImpl(String name) {
        this.name = name;
        for (int i = 0; i < ENTITIES; i++) {
            entities.put("entity" + i, new Entity(i));
        }
    }

    @Override
    public String toString() {
        return name + " with " + entities.size() + " entities and " + cache.length + " bytes";
    }

    private static final class Entity {
        final int id;

        Entity(int id) {
            this.id = id;
        }
    }
}
