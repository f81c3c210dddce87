// Colours of the canvases. The scales are computed in OKLab: lightness rises evenly from one end to the other, so they
// can be read without seeing hue, on paper, and by the colour-blind; hue only helps.

function srgb(linear) {
  const c = Math.min(1, Math.max(0, linear));
  return Math.round(255 * (c <= 0.0031308 ? 12.92 * c : 1.055 * c ** (1 / 2.4) - 0.055));
}

/** OKLCH -> [r, g, b] of 0..255 (B. Ottosson, "A perceptual color space for image processing", 2020). */
export function oklch(lightness, chroma, hue) {
  const a = chroma * Math.cos((hue * Math.PI) / 180);
  const b = chroma * Math.sin((hue * Math.PI) / 180);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    srgb(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
    srgb(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
    srgb(-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s),
  ];
}

const STEPS = 256;

/** 256 colours as 0xAABBGGRR: little size looks like the background, much stands out. */
export function sizeScale(dark) {
  const out = new Uint32Array(STEPS);
  for (let i = 0; i < STEPS; i++) {
    const x = i / (STEPS - 1);
    const [r, g, b] = dark
      ? oklch(0.2 + 0.73 * x, 0.03 + 0.1 * Math.sin(Math.PI * Math.min(1, 0.1 + x * 0.85)), 262 - 162 * x ** 1.5)
      : oklch(0.965 - 0.62 * x ** 0.9, 0.012 + 0.11 * x, 215 + 60 * x);
    out[i] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  return out;
}

let cached = null;

/** The theme's colours for canvases, read from the style sheet once a theme. */
export function palette() {
  const theme = document.documentElement.dataset.theme;
  if (cached?.theme === theme) return cached;
  const style = getComputedStyle(document.documentElement);
  const get = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["bg", "panel", "sunk", "line", "text", "muted", "bid", "ask", "alarm", "warn", "good", "h0", "h1", "h2", "h3"];
  cached = { theme, dark: theme === "dark", scale: sizeScale(theme === "dark") };
  for (const name of names) cached[name] = get(name);
  return cached;
}

export function onTheme(act) {
  window.addEventListener("microrisk-theme", act);
}
