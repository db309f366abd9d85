/* A plugin of GStreamer with the element `av1dec`, which aborts the process with its first frame: it stands for a flaw
 * in a codec. Built and loaded by quarantine.rs. */
#include <gst/gst.h>
#include <stdlib.h>

#define PACKAGE "commingle"

typedef struct { GstElement parent; } Aborts;
typedef struct { GstElementClass parent; } AbortsClass;

G_DEFINE_TYPE(Aborts, aborts, GST_TYPE_ELEMENT)

static GstStaticPadTemplate sink_template =
    GST_STATIC_PAD_TEMPLATE("sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS("video/x-av1"));
static GstStaticPadTemplate src_template =
    GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS("video/x-raw"));

static GstFlowReturn chain(GstPad *pad, GstObject *parent, GstBuffer *buffer) { abort(); }

static void set_property(GObject *object, guint id, const GValue *value, GParamSpec *spec) {}

static void aborts_class_init(AbortsClass *class) {
  GObjectClass *object = G_OBJECT_CLASS(class);
  GstElementClass *element = GST_ELEMENT_CLASS(class);
  object->set_property = set_property;
  g_object_class_install_property(
      object, 1, g_param_spec_int("max-errors", "", "", -1, G_MAXINT, 0, G_PARAM_WRITABLE));
  g_object_class_install_property(object, 2, g_param_spec_boolean("qos", "", "", TRUE, G_PARAM_WRITABLE));
  gst_element_class_add_static_pad_template(element, &sink_template);
  gst_element_class_add_static_pad_template(element, &src_template);
  gst_element_class_set_static_metadata(element, "Decoder that aborts", "Decoder/Video", "Aborts", "commingle");
}

static void aborts_init(Aborts *self) {
  GstPad *sink = gst_pad_new_from_static_template(&sink_template, "sink");
  gst_pad_set_chain_function(sink, chain);
  gst_element_add_pad(GST_ELEMENT(self), sink);
  gst_element_add_pad(GST_ELEMENT(self), gst_pad_new_from_static_template(&src_template, "src"));
}

static gboolean plugin_init(GstPlugin *plugin) {
  return gst_element_register(plugin, "av1dec", GST_RANK_NONE, aborts_get_type());
}

GST_PLUGIN_DEFINE(
    GST_VERSION_MAJOR, GST_VERSION_MINOR, aborts, "A decoder that aborts", plugin_init, "1", "LGPL", "commingle", "none")
