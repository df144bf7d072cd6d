import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/**
 * Who is inside a model, and who is changing it. One change of a name at a time; while it is shut nobody gets in.
 *
 * <p>A name takes memory only while somebody is inside, changes it or waits to.
 */
final class Turnstile {

    private static final class Place {
        int inside;
        int changers; // the one that is changing it and those that wait to
        boolean isChanging;
        boolean isShut;
    }

    private final Map<String, Place> places = new HashMap<>();

    /** False while the model is shut. Otherwise {@link #leave} has to follow. */
    synchronized boolean enter(String name) {
        Place place = places.computeIfAbsent(name, key -> new Place());
        if (place.isShut) {
            return false;
        }
        place.inside++;
        return true;
    }

    synchronized void leave(String name) {
        Place place = places.get(name);
        place.inside--;
        if (place.isShut) {
            notifyAll();
        }
        dropIfUnused(name, place);
    }

    /** Waits until nobody else changes the name. {@link #endChange} has to follow. */
    synchronized void beginChange(String name) throws InterruptedException {
        Place place = places.computeIfAbsent(name, key -> new Place());
        place.changers++;
        try {
            while (place.isChanging) {
                wait();
            }
            place.isChanging = true;
        } catch (InterruptedException e) {
            place.changers--;
            dropIfUnused(name, place);
            throw e;
        }
    }

    /** Lets nobody in until the change ends, and waits until all who are inside have left, or for so many seconds. */
    synchronized void shut(String name, long seconds) throws InterruptedException {
        Place place = places.get(name);
        place.isShut = true;
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(seconds);
        while (place.inside > 0) {
            long left = TimeUnit.NANOSECONDS.toMillis(deadline - System.nanoTime());
            if (left <= 0) {
                return;
            }
            wait(left);
        }
    }

    synchronized void endChange(String name) {
        Place place = places.get(name);
        place.isChanging = false;
        place.isShut = false;
        place.changers--;
        notifyAll();
        dropIfUnused(name, place);
    }

    private void dropIfUnused(String name, Place place) {
        if (place.inside == 0 && place.changers == 0) {
            places.remove(name);
        }
    }
}
