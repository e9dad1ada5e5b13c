// Mouse, touch and pen on a map: drag, pinch, wheel, double click, a box with shift, a range on the left edge.

export interface GestureTarget {
  /** Pixels the plot is inset by from the element's left and top edge. */
  inset(): { left: number; top: number };
  pan(dx: number, dy: number): void;
  zoom(factor: number, x: number, y: number, smooth?: boolean): void;
  hover(x: number, y: number): void;
  leave(): void;
  click(x: number, y: number): void;
  box(x0: number, y0: number, x1: number, y1: number, done: boolean): void;
  range(y0: number, y1: number, done: boolean): void;
}

type Mode = "pan" | "box" | "range";

export function listen(element: HTMLElement, target: GestureTarget): void {
  const down = new Map<number, { x: number; y: number }>();
  let mode: Mode = "pan";
  let start = { x: 0, y: 0 };
  let travelled = 0;

  const place = (event: PointerEvent | WheelEvent | MouseEvent): { x: number; y: number } => {
    const box = element.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    element.setPointerCapture(event.pointerId);
    const at = place(event);
    down.set(event.pointerId, at);
    start = at;
    travelled = down.size > 1 ? Infinity : 0;
    const { left, top } = target.inset();
    mode = at.x < left && at.y > top ? "range" : event.shiftKey ? "box" : "pan";
  });

  element.addEventListener("pointermove", (event) => {
    const at = place(event);
    const before = down.get(event.pointerId);
    if (!before) {
      target.hover(at.x, at.y);
      return;
    }
    const others = [...down].filter(([id]) => id !== event.pointerId).map(([, p]) => p);
    down.set(event.pointerId, at);
    travelled += Math.hypot(at.x - before.x, at.y - before.y);
    if (others.length) {
      const other = others[0];
      const [was, is] = [Math.hypot(before.x - other.x, before.y - other.y), Math.hypot(at.x - other.x, at.y - other.y)];
      target.pan((at.x - before.x) / 2, (at.y - before.y) / 2);
      if (was > 0 && is > 0) target.zoom(was / is, (at.x + other.x) / 2, (at.y + other.y) / 2);
    } else if (travelled > 3) {
      if (mode === "pan") target.pan(at.x - before.x, at.y - before.y);
      else if (mode === "box") target.box(start.x, start.y, at.x, at.y, false);
      else target.range(start.y, at.y, false);
    }
  });

  const up = (event: PointerEvent): void => {
    if (!down.has(event.pointerId)) return;
    const at = place(event);
    down.delete(event.pointerId);
    if (down.size) return;
    if (travelled <= 3 && event.type === "pointerup") {
      target.hover(at.x, at.y);
      target.click(at.x, at.y);
    } else if (mode === "box") target.box(start.x, start.y, at.x, at.y, true);
    else if (mode === "range" && travelled < Infinity) target.range(start.y, at.y, true);
  };
  element.addEventListener("pointerup", up);
  element.addEventListener("pointercancel", up);
  element.addEventListener("pointerleave", () => {
    if (!down.size) target.leave();
  });
  element.addEventListener("dblclick", (event) => {
    const at = place(event);
    target.zoom(event.shiftKey ? 2 : 0.5, at.x, at.y, true);
  });
  element.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const at = place(event);
      const pixels = event.deltaMode === 1 ? event.deltaY * 16 : event.deltaY;
      if (event.deltaX && Math.abs(event.deltaX) > Math.abs(event.deltaY) && !event.ctrlKey) target.pan(-event.deltaX, 0);
      else target.zoom(Math.exp(Math.max(-1, Math.min(1, pixels * (event.ctrlKey ? 0.01 : 0.0022)))), at.x, at.y);
    },
    { passive: false },
  );
}
