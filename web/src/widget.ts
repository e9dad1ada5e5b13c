// The widget of a notebook (an anywidget module): the page in a frame, its questions handed on to Python and back.

import type { FromFrame, ToFrame } from "./frame";

interface Model {
  get(name: string): unknown;
  set(name: string, value: unknown): void;
  save_changes(): void;
  send(content: unknown): void;
  on(name: string, told: (...given: never[]) => void): void;
  off(name: string, told: (...given: never[]) => void): void;
}

interface Answer {
  view: string;
  id: number;
  status: number;
  shape: string | null;
}

function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
  // Answers come to all views of a widget; each takes its own.
  const view = Math.random().toString(36).slice(2);
  const frame = document.createElement("iframe");
  frame.setAttribute("sandbox", "allow-scripts allow-downloads");
  frame.title = "attention";
  frame.style.cssText = `width:100%;height:${Number(model.get("height"))}px;border:0`;
  const tell = (message: ToFrame, moved: Transferable[] = []): void => frame.contentWindow?.postMessage({ regard: message }, "*", moved);
  const heard = (event: MessageEvent<{ regard?: FromFrame }>): void => {
    const said = event.source === frame.contentWindow ? event.data?.regard : undefined;
    if (said?.kind === "at") {
      model.set("state", said.state);
      model.save_changes();
    } else if (said?.kind === "ready") {
      if (model.get("state")) tell({ kind: "go", state: String(model.get("state")) });
    } else if (said) {
      model.send({ ...said, view });
    }
  };
  const answered = (answer: Answer, buffers: DataView[]): void => {
    if (answer.view !== view) return;
    const { buffer, byteOffset, byteLength } = buffers[0];
    const body = (buffer as ArrayBuffer).slice(byteOffset, byteOffset + byteLength);
    tell({ kind: "answer", id: answer.id, status: answer.status, shape: answer.shape, body }, [body]);
  };
  const moved = (): void => tell({ kind: "go", state: String(model.get("state")) });
  window.addEventListener("message", heard);
  model.on("msg:custom", answered);
  model.on("change:state", moved);
  frame.srcdoc = String(model.get("page"));
  el.append(frame);
  return () => {
    window.removeEventListener("message", heard);
    model.off("msg:custom", answered);
    model.off("change:state", moved);
  };
}

export default { render };
