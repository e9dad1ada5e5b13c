// A page in a frame that the page around it answers for: the widget of a notebook, which asks Python.

/** What `server` of the page's data is then. */
export const PARENT = "parent:";

/** From the frame: what it asks, what it no longer waits for, where it stands, and that it is there. */
export type FromFrame =
  | { kind: "ask"; id: number; path: string }
  | { kind: "stop"; id: number }
  | { kind: "at"; state: string }
  | { kind: "ready" };

/** To the frame: an answer, or where to go. */
export type ToFrame = { kind: "answer"; id: number; status: number; shape: string | null; body: ArrayBuffer } | { kind: "go"; state: string };

const tell = (message: FromFrame): void => parent.postMessage({ regard: message }, "*");

/** As `fetch`, through the page around this one. */
export function throughParent(): (path: string, signal: AbortSignal) => Promise<Response> {
  const waiting = new Map<number, (response: Response) => void>();
  let last = 0;
  window.addEventListener("message", (event: MessageEvent<{ regard?: ToFrame }>) => {
    const said = event.source === parent ? event.data?.regard : undefined;
    if (said?.kind === "answer") {
      const headers: Record<string, string> = said.shape === null ? {} : { "X-Shape": said.shape };
      waiting.get(said.id)?.(new Response(said.body, { status: said.status, headers }));
      waiting.delete(said.id);
    } else if (said?.kind === "go") {
      window.dispatchEvent(new CustomEvent("regard:go", { detail: said.state }));
    }
  });
  window.addEventListener("regard:at", (event) => tell({ kind: "at", state: (event as CustomEvent<string>).detail }));
  return (path, signal) =>
    new Promise((resolve, reject) => {
      const id = ++last;
      waiting.set(id, resolve);
      signal.addEventListener("abort", () => {
        waiting.delete(id);
        tell({ kind: "stop", id });
        reject(new DOMException("nobody waits for it", "AbortError"));
      });
      tell({ kind: "ask", id, path });
    });
}

/** Say that the page can be told where to go. */
export const ready = (): void => tell({ kind: "ready" });
